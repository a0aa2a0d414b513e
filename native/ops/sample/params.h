// sample: the next token of each row of logits, by the row's own parameters (docs/numerics.md, 5), and its log-probabilities.
// The steps, in float64 unless said, the same in ts/sampling/sampler.ts, which must give the same bits:
//   1. l_i = logits_i; ids outside the allowed mask (and, where set, the row's own mask) are out for good.
//      logprobs come from the raw logits over the whole vocabulary: logits_i - max - log Σ exp(logits - max).
//   2. Of the ids in the slot's list of adjustments: repetition r for ids in prompt or output: l > 0 ? l / r : l · r;
//      l -= frequency · count + presence · (count > 0), over generated tokens;  l += bias_i. All others stay as they are.
//   3. temperature 0: the largest l, ties by lower id. Else e_i = exp((l_i - l_first) / temperature), one exp an id, computed here
//      alone (the twin gets them). Order of the ids: the C largest by l descending (ties: lower id), the candidates; then all
//      others, the tail, by ascending id. C is topK where that is on; else the first of 64, 512, 4096, … whose candidates hold topP
//      of all mass (64 where topP is 1, for then the order is nobody's business and sorting less is faster).
//   4. In that order: topK keeps the first topK; minP drops e_i < minP · e_first (and the whole tail where it drops the last
//      candidate); topP keeps the shortest prefix of what is left whose running sum ≥ topP · total, total being the sum of what is
//      left. The first always stays. Every sum adds in that order, candidates and tail each from 0: a sum that reaches into the tail
//      is (the candidates' sum) + (the tail's so far).
//   5. u = uniform(seed, position) in [0,1); the first id of what is left whose running sum > u · (sum of what is left); if rounding
//      leaves none, the last of what is left.
// What follows from the token: a penalised slot counts it, the history gets it at its position, and the slot's length becomes that position.
// A row is drawn from only if the token that its logits follow, logitToken, is the newest of its slot, at position lengths[slot]: rows behind
// a draft that is not what the row before drew are void, and so are rows without a place. Drafted rows are therefore drawn from in turn.
// draft ≥ 1: the token is the slot's draft of that number, for position logitPosition + draft − 1; only the history gets it, and what is set for
// the next token (forced, mask) is not for a draft.
// Where hostDraw is set and the candidate tensors are there, candidates, their e and the tail's sum are written for the host.
// uniform: Philox4x32-10 with key = (low, high 32 bits of seed), counter = (position, 0, 0, 0); from the first two words a, b:
//   (a >>> 5) · 2^26 + (b >>> 6), over 2^53.
#pragma once
#include "ops/weight.h"
#include "runtime/anywhere.h"
namespace longcat {

/// Columns of the parameters of a slot, f64 [slots, kNumSampleFields].
enum SampleField {
  temperature = 0, topP = 1, topK = 2 /* 0 off */, minP = 3, repetition = 4 /* 1 off */, presence = 5, frequency = 6, seed = 7,
  forced = 8 /* ≥ 0: this token, whatever the logits */, useBias = 9, useMask = 10, numLogprobs = 11 /* -1 none; else alternatives to list */,
  hostDraw = 12 /* 1: write the candidates out too */, kNumSampleFields = 13
};
constexpr int kMaxLogprobs = 20;
constexpr int64_t kFirstCandidates = 64, kMoreCandidates = 8;  // how many are ranked first, and how many times more each time after
constexpr int64_t kCandidates = 1024;                           // how many the host may see
constexpr int32_t kInPrompt = 1 << 30;

/// What may change an id's logit. A slot has a list of them by ascending id.
struct Adjustment {
  int32_t id;
  int32_t count;  // kInPrompt: the id occurs in the prompt; the lower bits count generated ones
  float bias;
};
constexpr int64_t kAdjustmentWords = sizeof(Adjustment) / sizeof(int32_t);

// tensors: logits, logit_slot, logit_position, params, allowed, adjustments, num_adjustments, mask, history, tokens, logprob?, top_ids?,
//          top_logprobs?, rows, logit_token?, lengths?, candidate_ids?, candidate_exps?, candidate_stats?
// scalars: draft, most_rows
struct SampleParams {
  const float* logits;            // [R, vocabulary]
  const int32_t* logitSlot;       // [R] slot whose parameters the row takes; -1: no token is wanted
  const int32_t* logitPosition;   // [R] position that the new token will have; -1: the row has no place
  const int32_t* logitToken;      // [R] token that the logits follow, or null: no row is void
  int32_t* lengths;               // [slots] or null
  const double* params;           // [slots, kNumSampleFields]
  const uint32_t* allowed;        // [ceil(vocabulary/32)] bit set: the tokenizer has this id
  Adjustment* adjustments;        // [slots, maxAdjustments], read where useBias is set or a penalty is on; then the drawn token is counted
  int32_t* numAdjustments;        // [slots]; a token that would be one too many is not counted
  const uint32_t* mask;           // [slots, ceil(vocabulary/32)], read where useMask
  int32_t* history;               // [slots or more, context]: the token is written at [slot][position] (if position < context)
  int64_t historyStride;
  const int32_t* rows;            // [2]: rows [rows[0], rows[1]) are drawn from, at most mostRows. What follows is [mostRows or more], of those rows
  int32_t* tokens;                // [n]; -1 of a row that is not drawn from
  float* logprob;                 // [n] of the token (0 unless numLogprobs ≥ 0), or null, as the next two
  int32_t* topIds;                // [n, kMaxLogprobs] by log-probability descending, ties by lower id; over allowed ids
  float* topLogprobs;             // [n, kMaxLogprobs]
  int32_t* candidateIds;          // [n, kCandidates] or null; -1 beyond the last
  double* candidateExps;          // [n, kCandidates] or null
  double* candidateStats;         // [n, 2] or null: sum of the tail's e, number of ids in the tail
  int64_t capacity, mostRows, vocabulary, maxAdjustments;
  int32_t draft;                  // 0: the next token
};

/// Whether a slot with these parameters (SampleField) counts its tokens.
LONGCAT_ANYWHERE inline bool isPenalised(const double* field) {
  return field[SampleField::repetition] != 1 || field[SampleField::presence] != 0 || field[SampleField::frequency] != 0;
}

/// Whether a slot with these parameters gets a token that is set, and whether only those that its mask has: both are for the next token alone.
LONGCAT_ANYWHERE inline bool isForced(const SampleParams& p, const double* field) {
  return !p.draft && field[SampleField::forced] >= 0 && field[SampleField::forced] < static_cast<double>(p.vocabulary);
}
LONGCAT_ANYWHERE inline bool isMasked(const SampleParams& p, const double* field) { return !p.draft && field[SampleField::useMask] != 0; }

/// A row's position and whether it is drawn from.
struct DrawPlace {
  int32_t position;
  bool isLive;
};
LONGCAT_ANYWHERE inline DrawPlace drawPlace(const SampleParams& p, int64_t r) {
  const int32_t slot = p.logitSlot[r], position = p.logitPosition[r];
  if (slot < 0 || position < 0) return {position, false};
  if (p.draft) return {position + p.draft - 1, true};
  if (!p.logitToken) return {position, true};
  return {position, p.lengths[slot] + 1 == position && p.history[slot * p.historyStride + position - 1] == p.logitToken[r]};
}

}  // namespace longcat
