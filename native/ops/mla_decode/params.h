// mla_decode: absorbed attention of generated tokens over the paged latent cache, split over the keys (docs/model.md, 3.1).
//   q_lat = q_nope W_k;  score = (q_lat·c + q_rope·k_rope) · softmaxScale;  o_lat = Σ softmax(score) c;  out = W_v o_lat
// A row's keys (positions 0 … its own) are cut in splits of kSplitKeys by length alone; each split gives (max, sum, o_lat
// unnormalised); the merge goes in ascending split order. Hopper's attention cuts otherwise (units.cuh): it does not read `splits`, and
// has [maxSplits, heads, kv_rank] sums in `partial`, then [maxSplits, heads] pairs (max, sum).
#pragma once
#include "ops/attention_args.h"
namespace longcat {

constexpr int64_t kSplitKeys = 256;

// Rows [numPrefillRows, numRows) are decoded here; no other row of `out` is written.
// tensors: q, cache, kv_b, kv_b_scale?, positions, row_slot, block_tables, counts, splits, q_latent, partial, out
// scalars: heads, nope, rope, v_dim, softmax_scale
struct MlaDecodeParams : AttentionArgs {
  const int32_t* rowSlot;      // [T]
  const int32_t* splits;       // [maxSplits, 2] = (row, split number), rows ascending; numSplits in counts (from step_plan)
  int64_t maxSplits;
  Activations qLatent;         // [T, heads, kv_rank] scratch
  float* partial;              // [maxSplits, heads, kv_rank+2] scratch
};

}  // namespace longcat
