// mla_prefill: causal attention of prompt tokens over expanded keys and values (docs/model.md, 3).
//   k = [W_k c | rope key], v = W_v c of each cached row c (W_kvb's rows per head: nope keys, then v values)
//   out_head = softmax(q·k · softmaxScale, causal) v
// Rows are those of the step's prompt part; no other row of `out` is written. Keys go in tiles of kKeyTile anchored at position 0 of the sequence, with a running
// maximum and sum: the bits of a row depend on its position and its sequence alone, not on how the prompt was cut.
// (A body may take whole parts of kKeyTile instead, anchored likewise.)
#pragma once
#include "ops/attention_args.h"
namespace longcat {

constexpr int64_t kKeyTile = 128;
constexpr int64_t kRoundPlanHead = 4, kQueryTile = 128, kQueryTileNumbers = 8;

/// Numbers in `roundPlan`: a sequence's rows are at most two tiles more than they fill.
inline int64_t roundPlanNumbers(int64_t rows, int64_t sequences, int64_t expandedRows) {
  return kRoundPlanHead + expandedRows + kQueryTileNumbers * (rows / kQueryTile + 2 * (sequences < rows ? sequences : rows));
}

// On a GPU, keys and values are expanded once a step, round by round: the prompt sequences' keys, each sequence's rounded up to whole
// tiles, form one list, of which `expanded` holds expandedRows at a time; between rounds `accumulator` and `state` keep what each row
// has so far. maxKeys bounds that list's length, so that no more rounds are launched than there may be. `roundPlan` says where in the cache
// the round's keys are and which tiles of query rows meet them, and hands out the round's work. Of a packed cache the round's keys are first
// unpacked to `latents`; there, too, the product that expands them may put its rows in order.
//
// tensors: q, cache, kv_b, kv_b_scale?, positions, seq_start, seq_slot, block_tables, counts, out, state, expanded?, accumulator?, round_plan?, latents?
// scalars: heads, nope, rope, v_dim, softmax_scale, max_keys
struct MlaPrefillParams : AttentionArgs {
  const int32_t* seqStart;     // [S+1] first row of each sequence of the step (prompt sequences first)
  const int32_t* seqSlot;      // [S]
  int64_t maxSequences;        // S
  float* state;                // [T, heads, 2] scratch: running maximum and sum
  Activations expanded;        // [expandedRows, heads, nope+v] scratch, a multiple of kKeyTile rows; a GPU needs it
  float* accumulator;          // [T, heads, v] scratch; a GPU needs it
  int32_t* roundPlan;          // [roundPlanNumbers()] scratch (prompts.cuh); a GPU needs it
  Activations latents;         // [expandedRows, kv_rank+rope] scratch; a GPU needs it where the cache is packed, and is faster with it where kv_b is FP8
  int64_t expandedRows;
  int64_t maxKeys;             // Σ over the step's prompt sequences of their keys, each rounded up to kKeyTile, is at most this
};

}  // namespace longcat
