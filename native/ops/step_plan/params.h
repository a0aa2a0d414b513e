// step_plan: what a step's later operations share, built once a step: the tokens, each row's slot and rotation, the decode splits.
//   Prompt rows: slot, position and token are the host's; the token goes into the history, and so does seqNext behind a chunk's last.
//   Decode row j of a sequence: position = lengths[slot] + ahead + j, token = history[slot][position] (of j = 0 the one that `sample` drew
//   last, of the others drafts). A row whose position is not below the sequence's limit, or whose sequence has no slot (-1), has no place:
//   it runs in the spare slot, at position 0.
//   lengths[slot] = the position of the slot's newest token: of the last one of a prompt's chunk, written here; `sample` moves it on.
//   Logits i come from row logitRows[i]: logitPosition = its position + 1, -1 for a row without a place; logitToken = its token.
//   cosSin[r] = cos and sin of float(position) · invFreq[j], × rotaryScale     (cos_0 … cos_{d/2-1}, sin_0 … sin_{d/2-1})
//   splits: for each decode row r in order, (r, 0), (r, 1), … one for every kSplitKeys keys of position+1
#pragma once
#include "ops/weight.h"
namespace longcat {

/// The step's counts: i32[8], written by the host each step. numSplits is written by step_plan.
enum StepCount { numRows = 0, numPrefillRows = 1, numSequences = 2, numPrefillSequences = 3, numLogitRows = 4, numSplits = 5 };

// tensors: counts, token_ids, prompt_positions, seq_start, seq_slot, seq_limit, seq_next, logit_rows?, inv_freq, history, lengths, tokens,
//          positions, row_slot, cos_sin, splits, logit_position?, logit_token?
// scalars: rotary_scale, ahead
struct StepPlanParams {
  int32_t* counts;                 // [8]
  const int32_t* tokenIds;         // [T], read of prompt rows
  const int32_t* promptPositions;  // [T], read of prompt rows
  const int32_t* seqStart;         // [S+1]
  const int32_t* seqSlot;          // [S]
  const int32_t* seqLimit;         // [S] positions that the sequence has cache for
  const int32_t* seqNext;          // [S] the prompt's token behind its chunk; -1: not known
  const int32_t* logitRows;        // [R], numLogitRows of them live; null: nobody asks
  const float* invFreq;            // [rope/2]
  int32_t* history;                // [slots or, with a spare slot, slots+1, context]
  int64_t historyStride;
  int32_t* lengths;                // [slots]
  int32_t* tokens;                 // [T]
  int32_t* positions;              // [T]
  int32_t* rowSlot;                // [T]
  float* cosSin;                   // [T, rope]
  int32_t* splits;                 // [maxSplits, 2]
  int32_t* logitPosition;          // [R] or null
  int32_t* logitToken;             // [R] or null
  int64_t capacity, maxSequences, maxSplits, maxLogitRows, rope;
  int32_t spareSlot;               // -1: there is none, and every row has a place
  int32_t ahead;
  float rotaryScale;
};

}  // namespace longcat
