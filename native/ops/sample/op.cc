// sample: its arguments, their checks, and the loop over rows.
#include "ops/check.h"
#include "ops/sample/draw.h"
#include "ops/sample/sample.h"

namespace longcat {
LONGCAT_DECLARE_BODIES(sample)
extern const OpSpec kSampleOp;

namespace {

enum Arg {
  kLogits, kLogitSlot, kLogitPosition, kParams, kAllowed, kAdjustments, kNumAdjustments, kMask, kHistory, kTokens, kLogprob, kTopIds,
  kTopLogprobs, kRows, kLogitToken, kLengths, kCandidateIds, kCandidateExps, kCandidateStats, kNumArgs
};
const TensorArg kTensors[kNumArgs] = {{"logits"},
                                      {"logit_slot"},
                                      {"logit_position"},
                                      {"params"},
                                      {"allowed"},
                                      {"adjustments", Use::inout},
                                      {"num_adjustments", Use::inout},
                                      {"mask"},
                                      {"history", Use::inout},
                                      {"tokens", Use::out},
                                      {"logprob", Use::out, true},
                                      {"top_ids", Use::out, true},
                                      {"top_logprobs", Use::out, true},
                                      {"rows"},
                                      {"logit_token", Use::in, true},
                                      {"lengths", Use::inout, true},
                                      {"candidate_ids", Use::out, true},
                                      {"candidate_exps", Use::out, true},
                                      {"candidate_stats", Use::out, true}};
enum ScalarArg { kDraft, kMostRows, kNumScalarArgs };
const char* const kScalars[kNumScalarArgs] = {"draft", "most_rows"};

void prepare(const OpArgs& args, void* storage) {
  const ArgCheck check(kSampleOp, args);
  auto& p = paramsAt<SampleParams>(storage);
  p.capacity = check.size(kLogits, 0);
  p.vocabulary = check.size(kLogits, 1);
  const int64_t rows = p.capacity, slots = check.size(kParams, 0), words = (p.vocabulary + 31) / 32;
  p.logits = check.dense<const float>(kLogits, DType::f32, {rows, p.vocabulary});
  check.requireArg(kLogits, p.vocabulary >= 1 && p.vocabulary < kInPrompt, "has an impossible vocabulary");
  p.logitSlot = check.dense<const int32_t>(kLogitSlot, DType::i32, {rows});
  p.logitPosition = check.dense<const int32_t>(kLogitPosition, DType::i32, {rows});
  p.params = check.dense<const double>(kParams, DType::f64, {slots, kNumSampleFields});
  p.allowed = check.dense<const uint32_t>(kAllowed, DType::i32, {words});
  p.maxAdjustments = check.size(kAdjustments, 1);
  p.adjustments = reinterpret_cast<Adjustment*>(check.dense<int32_t>(kAdjustments, DType::i32, {slots, p.maxAdjustments, kAdjustmentWords}));
  p.numAdjustments = check.dense<int32_t>(kNumAdjustments, DType::i32, {slots});
  p.mask = check.dense<const uint32_t>(kMask, DType::i32, {slots, words});
  p.history = check.dense<int32_t>(kHistory, DType::i32, {kAnySize, kAnySize});
  check.requireArg(kHistory, check.size(kHistory, 0) >= slots, "must have a row a slot");
  p.historyStride = check.size(kHistory, 1);
  p.rows = check.dense<const int32_t>(kRows, DType::i32, {2});
  p.logitToken = check.dense<const int32_t>(kLogitToken, DType::i32, {rows});
  p.lengths = check.dense<int32_t>(kLengths, DType::i32, {slots});
  p.draft = static_cast<int32_t>(check.integer(kDraft, 0, 1 << 16));
  p.mostRows = check.integer(kMostRows, 1, rows);
  const int64_t drawn = check.size(kTokens, 0);
  p.tokens = check.dense<int32_t>(kTokens, DType::i32, {drawn});
  check.requireArg(kTokens, drawn >= p.mostRows, "must have most_rows tokens");
  p.logprob = check.dense<float>(kLogprob, DType::f32, {drawn});
  p.topIds = check.dense<int32_t>(kTopIds, DType::i32, {drawn, kMaxLogprobs});
  p.topLogprobs = check.dense<float>(kTopLogprobs, DType::f32, {drawn, kMaxLogprobs});
  p.candidateIds = check.dense<int32_t>(kCandidateIds, DType::i32, {drawn, kCandidates});
  p.candidateExps = check.dense<double>(kCandidateExps, DType::f64, {drawn, kCandidates});
  p.candidateStats = check.dense<double>(kCandidateStats, DType::f64, {drawn, 2});
  const bool all = p.candidateIds && p.candidateExps && p.candidateStats, none = !p.candidateIds && !p.candidateExps && !p.candidateStats;
  require(all || none, "sample: candidate_ids, candidate_exps and candidate_stats go together");
  require(!p.logitToken == !p.lengths, "sample: logit_token and lengths go together");
  require(!p.logprob == !p.topIds && !p.logprob == !p.topLogprobs, "sample: logprob, top_ids and top_logprobs go together");
}

size_t threadScratch(const void* params) { return DrawScratch::bytes(static_cast<const SampleParams*>(params)->vocabulary); }

/// What a draw by the host sees: up to kCandidates candidates, and the sum and number of all others.
void writeCandidates(const SampleParams& p, int64_t i, Candidates& candidates) {
  int32_t* ids = p.candidateIds + i * kCandidates;
  double* exps = p.candidateExps + i * kCandidates;
  const int64_t listed = std::min(candidates.count(), kCandidates);
  for (int64_t j = 0; j < kCandidates; ++j) {
    ids[j] = j < listed ? candidates.entries()[j].id : -1;
    exps[j] = j < listed ? candidates.entries()[j].value : 0.0;
  }
  double beyond = 0;
  for (int64_t j = listed; j < candidates.count(); ++j) beyond += candidates.entries()[j].value;
  p.candidateStats[2 * i] = beyond + candidates.tailSum(0);
  p.candidateStats[2 * i + 1] = static_cast<double>(candidates.count() - listed + candidates.tailCount());
}

/// An id that is allowed whatever the row's own mask says: an empty mask must not end in an id that does not exist.
int32_t lowestAllowed(const SampleRow& row) {
  int32_t lowest = 0;
  row.forIds([&](int64_t w) { return row.existing(w); }, [&](int32_t id) { return lowest = id, false; });
  return lowest;
}

int32_t chooseToken(const SampleParams& p, int64_t r, int64_t i, const SampleRow& row, const DrawScratch& scratch) {
  const double* f = p.params + p.logitSlot[r] * kNumSampleFields;
  const bool forced = isForced(p, f);
  const bool writesCandidates = f[hostDraw] != 0 && p.candidateIds;
  int32_t token = -1;
  if (writesCandidates || (!forced && row.temperature > 0)) {
    Candidates candidates(row, scratch);
    if (writesCandidates) writeCandidates(p, i, candidates);
    if (!forced) token = drawToken(row, candidates);
  } else if (!forced) {
    token = greedyToken(row);
  }
  if (forced) return static_cast<int32_t>(f[SampleField::forced]);
  return token >= 0 ? token : lowestAllowed(row);
}

/// Counts a token that was drawn, for the penalties of later steps.
void countToken(const SampleParams& p, int64_t slot, int32_t token) {
  Adjustment* begin = p.adjustments + slot * p.maxAdjustments;
  Adjustment* end = begin + p.numAdjustments[slot];
  Adjustment* place = std::lower_bound(begin, end, token, [](const Adjustment& a, int32_t id) { return a.id < id; });
  if (place < end && place->id == token) {
    ++place->count;
  } else if (p.numAdjustments[slot] < p.maxAdjustments) {
    std::move_backward(place, end, end + 1);
    *place = {token, 1, 0};
    ++p.numAdjustments[slot];
  }
}

void writeNoLogprobs(const SampleParams& p, int64_t i) {
  p.logprob[i] = 0;
  std::fill_n(p.topIds + i * kMaxLogprobs, kMaxLogprobs, -1);
  std::fill_n(p.topLogprobs + i * kMaxLogprobs, kMaxLogprobs, kLogprobFloor);
}

/// Log-probabilities of the token and of as many alternatives as the slot asks for.
void writeLogprobs(const SampleParams& p, int64_t r, int64_t i, const SampleRow& row, int32_t token) {
  const double listed = p.params[p.logitSlot[r] * kNumSampleFields + numLogprobs];
  if (listed < 0) return writeNoLogprobs(p, i);
  const double logSum = logSumExp(row.logits, p.vocabulary);
  p.logprob[i] = logprobOf(row.logits[token], logSum);
  listLogprobs(row, static_cast<int>(std::min<double>(listed, kMaxLogprobs)), logSum, p.topIds + i * kMaxLogprobs, p.topLogprobs + i * kMaxLogprobs);
}

/// What follows from a row's token.
void keepToken(const SampleParams& p, int64_t slot, int64_t position, int32_t token) {
  if (position < p.historyStride) p.history[slot * p.historyStride + position] = token;
  if (p.draft) return;
  if (p.lengths) p.lengths[slot] = static_cast<int32_t>(position);
  if (isPenalised(p.params + slot * kNumSampleFields)) countToken(p, slot, token);
}

/// Row r of the logits, the i-th of those that are drawn from.
void sampleRow(const SampleParams& p, int64_t r, int64_t i, const DrawScratch& scratch) {
  const DrawPlace place = drawPlace(p, r);
  if (!place.isLive) {
    p.tokens[i] = -1;
    if (p.logprob) writeNoLogprobs(p, i);
    return;
  }
  const SampleRow row(p, r, place.position);
  const int32_t token = p.tokens[i] = chooseToken(p, r, i, row, scratch);
  if (p.logprob) writeLogprobs(p, r, i, row, token);
  keepToken(p, p.logitSlot[r], place.position, token);
}

}  // namespace

void sampleRows(const SampleParams& p, const CpuContext& context) {
  const int64_t first = std::max(p.rows[0], 0), end = std::min({int64_t{p.rows[1]}, p.capacity, first + p.mostRows});
  context.pool.parallelFor(std::max<int64_t>(end - first, 0), [&](int64_t i, int thread) {
    sampleRow(p, first + i, i, DrawScratch(context.scratch<std::byte>(thread), p.vocabulary));
  });
}

const OpSpec kSampleOp = {"sample", kTensors, kNumArgs, kScalars, kNumScalarArgs, prepare, threadScratch, LONGCAT_CPU_BODIES(sample), LONGCAT_CUDA_BODY(sample)};

}  // namespace longcat
