// mla_prefill: causal attention of prompt tokens over expanded keys and values (docs/model.md, 3).
//   k = [W_k c | rope key], v = W_v c of each cached row c (W_kvb's rows per head: nope keys, then v values)
//   out_head = softmax(q·k · softmaxScale, causal) v
// Rows are those of the step's prompt part. Keys go in tiles of kKeyTile anchored at position 0 of the sequence, with a running
// maximum and sum: the bits of a row depend on its position and its sequence alone, not on how the prompt was cut.
#pragma once
#include "ops/weight.h"
namespace longcat {

constexpr int64_t kKeyTile = 64;

// tensors: q, cache, kv_b, kv_b_scale?, positions, seq_start, seq_slot, block_tables, counts, out, state
// scalars: heads, nope, rope, v_dim, softmax_scale
struct MlaPrefillParams {
  const float* q;              // [T, heads, nope+rope]
  const float* cache;          // [blocks, blockSize, kv_rank+rope]; rows of this step's tokens are already there
  WeightView kvB;              // [heads·(nope+v), kv_rank]
  const int32_t* positions;    // [T]
  const int32_t* seqStart;     // [S+1] first row of each sequence of the step (prompt sequences first)
  const int32_t* seqSlot;      // [S]
  const int32_t* blockTables;  // [slots, maxBlocks]
  const int32_t* counts;       // step counts, ops/step_plan/params.h
  float* out;                  // [T, heads·v]: only rows of the prompt part are written
  float* state;                // [T, heads, 2] scratch: running maximum and sum
  int64_t maxBlocks, blockSize, kvRank, capacity;
  int32_t heads, nope, rope, vDim;
  float softmaxScale;
};

}  // namespace longcat
