// step_plan: what a step's later operations share, built once a step: the tokens, each row's slot and rotation, the decode splits.
//   tokens[r] = tokenIds[r] ≥ 0 ? tokenIds[r] : history[slot][position]      (-1: the token that `sample` wrote there)
//   history[slot][position] = tokens[r]
//   cosSin[r] = cos and sin of float(position) · invFreq[j], × rotaryScale     (cos_0 … cos_{d/2-1}, sin_0 … sin_{d/2-1})
//   splits: for each decode row r in order, (r, 0), (r, 1), … one for every kSplitKeys keys of position+1
#pragma once
#include "ops/weight.h"
namespace longcat {

/// The step's counts: i32[8], written by the host each step. numSplits is written by step_plan.
enum StepCount { numRows = 0, numPrefillRows = 1, numSequences = 2, numPrefillSequences = 3, numLogitRows = 4, numSplits = 5 };

// tensors: counts, token_ids, positions, seq_start, seq_slot, inv_freq, history, tokens, row_slot, cos_sin, splits
// scalars: rotary_scale
struct StepPlanParams {
  int32_t* counts;             // [8]
  const int32_t* tokenIds;     // [T], -1: take it from the history
  const int32_t* positions;    // [T]
  const int32_t* seqStart;     // [S+1]
  const int32_t* seqSlot;      // [S]
  const float* invFreq;        // [rope/2]
  int32_t* history;            // [slots, context]
  int64_t historyStride;
  int32_t* tokens;             // [T]
  int32_t* rowSlot;            // [T]
  float* cosSin;               // [T, rope]
  int32_t* splits;             // [maxSplits, 2]
  int64_t capacity, maxSequences, maxSplits, rope;
  float rotaryScale;
};

}  // namespace longcat
