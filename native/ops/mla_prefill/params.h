// mla_prefill: causal attention of prompt tokens over expanded keys and values (docs/model.md, 3).
//   k = [W_k c | rope key], v = W_v c of each cached row c (W_kvb's rows per head: nope keys, then v values)
//   out_head = softmax(q·k · softmaxScale, causal) v
// Rows are those of the step's prompt part; no other row of `out` is written. Keys go in tiles of kKeyTile anchored at position 0 of the sequence, with a running
// maximum and sum: the bits of a row depend on its position and its sequence alone, not on how the prompt was cut.
#pragma once
#include "ops/attention_args.h"
namespace longcat {

constexpr int64_t kKeyTile = 64;

// tensors: q, cache, kv_b, kv_b_scale?, positions, seq_start, seq_slot, block_tables, counts, out, state
// scalars: heads, nope, rope, v_dim, softmax_scale
struct MlaPrefillParams : AttentionArgs {
  const int32_t* seqStart;     // [S+1] first row of each sequence of the step (prompt sequences first)
  const int32_t* seqSlot;      // [S]
  float* state;                // [T, heads, 2] scratch: running maximum and sum
};

}  // namespace longcat
