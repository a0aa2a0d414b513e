// What mla_prefill and mla_decode share of their arguments: one struct, and one function that checks and fills it.
//   tensors: q, cache, kv_b, kv_b_scale?, positions come first; block_tables, counts and out where each operation has them
//   scalars: heads, nope, rope, v_dim, softmax_scale
#pragma once

#include "ops/latent_cache.h"
#include "ops/weight.h"

namespace longcat {

class ArgCheck;

struct AttentionArgs {
  ConstActivations q;          // [T, heads, nope+rope]
  ConstActivations cache;      // [blocks, blockSize, kv_rank+rope]; rows of this step's tokens are already there
  bool packedCache;            // uint8 [blocks, blockSize, rowBytes] instead: latent_cache.h
  WeightView kvB;              // [heads·(nope+v), kv_rank]
  const int32_t* positions;    // [T]
  const int32_t* blockTables;  // [slots, maxBlocks]
  const int32_t* counts;       // step counts, ops/step_plan/params.h
  Activations out;             // [T, heads·v]: the other operation's rows are left alone, so it is `inout`
  int64_t maxBlocks, blockSize, kvRank, capacity;
  int64_t cacheRows;           // blocks · blockSize, at most INT32_MAX
  int64_t heads, nope, rope, vDim;
  float softmaxScale;
  DType activation;

  /// Where a packed cache has row `row`.
  LONGCAT_ANYWHERE PackedRow<const uint8_t> packedRow(int64_t row) const {
    return PackedLatents{kvRank, rope, blockSize}.at(static_cast<const uint8_t*>(cache.data), row);
  }
};

enum AttentionTensor { kQ, kCache, kKvB, kKvBScale, kPositions, kNumAttentionTensors };
inline constexpr const char* kAttentionScalars[] = {"heads", "nope", "rope", "v_dim", "softmax_scale"};
inline constexpr int kNumAttentionScalars = 5;

/// Checks and fills `to`; the indices say where the operation has its block_tables, counts and out.
void fillAttentionArgs(const ArgCheck& check, int blockTables, int counts, int out, AttentionArgs& to);

}  // namespace longcat
