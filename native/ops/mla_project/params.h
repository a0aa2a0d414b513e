// mla_project: from the normed hidden state to the query and the latent cache row (docs/model.md, 3).
//   q = W_qb RMS(W_qa n + b_qa) · qScale, per head nope | rope, RoPE on the rope part
//   t = W_kva n + b_kva: latent | rope key;  cache row = [RMS(latent) · kvScale | RoPE(rope key)]
// A packed cache's latent is rounded to e4m3 as it is written: codes of latent / scale, scale = latentScale(max|latent|) of each 128 (ops/latent_cache.h).
// RoPE takes interleaved pairs (x_2j, x_2j+1) and writes halves: y_j = x_2j cos_j - x_2j+1 sin_j; y_{j+d/2} = x_2j+1 cos_j + x_2j sin_j.
#pragma once
#include "ops/latent_cache.h"
#include "ops/weight.h"
namespace longcat {

// tensors: x, q_a, q_a_scale?, q_a_bias?, q_a_norm, q_b, q_b_scale?, kv_a, kv_a_scale?, kv_a_bias?, kv_a_norm, cos_sin, positions,
//          row_slot, block_tables, q_latent, kv_latent, latent_lanes?, q, cache, rows
// scalars: heads, nope, rope, eps, q_scale, kv_scale
struct MlaProjectParams {
  ConstActivations x;          // [T, hidden] contiguous
  WeightView qA, qABias;       // [q_rank, hidden]; bias [1, q_rank] or data null
  WeightView qANorm;           // [1, q_rank]
  WeightView qB;               // [heads·(nope+rope), q_rank]
  WeightView kvA, kvABias;     // [kv_rank+rope, hidden]
  WeightView kvANorm;          // [1, kv_rank]
  const float* cosSin;         // [T, rope]: cos of pair 0..rope/2-1, then sin (from step_plan)
  const int32_t* positions;    // [T]
  const int32_t* rowSlot;      // [T]
  const int32_t* blockTables;  // [slots, maxBlocks]: cache block of each blockSize positions of the slot's sequence
  int64_t maxBlocks;
  Activations qLatent;         // [T, q_rank] scratch
  Activations kvLatent;        // [T, kv_rank+rope] scratch
  float* latentLanes;          // [mostLanes, laneRows, q_rank+kv_rank+rope] scratch, or null: few rows on a GPU (sm90/lanes.h)
  int64_t mostLanes, laneRows;
  Activations q;               // [T, heads, nope+rope]
  Activations cache;           // [blocks, blockSize, kv_rank+rope]
  bool packedCache;            // uint8 [blocks, blockSize, rowBytes] instead: latent_cache.h
  int64_t blockSize;
  const int32_t* rows;         // [1]
  int64_t capacity;
  int64_t heads, nope, rope;
  float eps, qScale, kvScale;
  DType activation;

  /// Where a packed cache has row `row`.
  LONGCAT_ANYWHERE PackedRow<uint8_t> packedRow(int64_t row) const {
    return PackedLatents{kvA.rows - rope, rope, blockSize}.at(static_cast<uint8_t*>(cache.data), row);
  }
};

}  // namespace longcat
