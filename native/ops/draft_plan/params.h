// draft_plan: what the draft head needs of a step whose tokens are drawn (docs/architecture.md: speculation).
//   following[r] = history[slot][position + 1] of each row: the token behind it, drawn or given; behind a rejected draft, any
//   A sequence has drawn if its slot's newest token, at lengths[slot], is behind the rows that it began with: behind a prompt's last row, or
//   behind a decode's first. Its next draft then comes from the row before the newest token: draftRow, draftSlot, and draftPosition =
//   lengths[slot] + 1. Of all others draftSlot and draftPosition are -1, draftRow is the first row.
#pragma once
#include "ops/weight.h"
namespace longcat {

// tensors: counts, seq_start, seq_slot, positions, row_slot, history, lengths, following, draft_row, draft_slot, draft_position
struct DraftPlanParams {
  const int32_t* counts;     // [8]
  const int32_t* seqStart;   // [S+1]
  const int32_t* seqSlot;    // [S]
  const int32_t* positions;  // [T] from step_plan
  const int32_t* rowSlot;    // [T] from step_plan
  const int32_t* history;    // [slots or more, context]
  int64_t historyStride;
  const int32_t* lengths;    // [slots]
  int32_t* following;        // [T]
  int32_t* draftRow;         // [S]
  int32_t* draftSlot;        // [S]
  int32_t* draftPosition;    // [S]
  int64_t capacity, maxSequences;
};

}  // namespace longcat
