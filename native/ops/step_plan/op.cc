// step_plan: its arguments and their checks.
#include "ops/step_plan/params.h"

#include "ops/check.h"

namespace longcat {
LONGCAT_DECLARE_BODIES(step_plan)
extern const OpSpec kStepPlanOp;

namespace {

enum Arg {
  kCounts, kTokenIds, kPromptPositions, kSeqStart, kSeqSlot, kSeqLimit, kSeqNext, kLogitRows, kInvFreq, kHistory, kLengths, kTokens, kPositions,
  kRowSlot, kCosSin, kSplits, kLogitPosition, kLogitToken, kNumArgs
};
const TensorArg kTensors[kNumArgs] = {{"counts", Use::inout},
                                      {"token_ids"},
                                      {"prompt_positions"},
                                      {"seq_start"},
                                      {"seq_slot"},
                                      {"seq_limit"},
                                      {"seq_next"},
                                      {"logit_rows", Use::in, true},
                                      {"inv_freq"},
                                      {"history", Use::inout},
                                      {"lengths", Use::inout},
                                      {"tokens", Use::out},
                                      {"positions", Use::out},
                                      {"row_slot", Use::out},
                                      {"cos_sin", Use::out},
                                      {"splits", Use::out},
                                      {"logit_position", Use::out, true},
                                      {"logit_token", Use::out, true}};
enum ScalarArg { kRotaryScale, kAhead, kNumScalarArgs };
const char* const kScalars[kNumScalarArgs] = {"rotary_scale", "ahead"};

void prepare(const OpArgs& args, void* storage) {
  const ArgCheck check(kStepPlanOp, args);
  auto& p = paramsAt<StepPlanParams>(storage);
  p.capacity = check.size(kTokenIds, 0);
  p.maxSequences = check.size(kSeqSlot, 0);
  p.maxSplits = check.size(kSplits, 0);
  p.rope = 2 * check.size(kInvFreq, 0);
  p.counts = check.dense<int32_t>(kCounts, DType::i32, {8});
  p.tokenIds = check.dense<const int32_t>(kTokenIds, DType::i32, {p.capacity});
  p.promptPositions = check.dense<const int32_t>(kPromptPositions, DType::i32, {p.capacity});
  p.seqStart = check.dense<const int32_t>(kSeqStart, DType::i32, {p.maxSequences + 1});
  p.seqSlot = check.dense<const int32_t>(kSeqSlot, DType::i32, {p.maxSequences});
  p.seqLimit = check.dense<const int32_t>(kSeqLimit, DType::i32, {p.maxSequences});
  p.seqNext = check.dense<const int32_t>(kSeqNext, DType::i32, {p.maxSequences});
  p.maxLogitRows = check.has(kLogitRows) ? check.size(kLogitRows, 0) : 0;
  p.logitRows = check.dense<const int32_t>(kLogitRows, DType::i32, {p.maxLogitRows});
  p.logitPosition = check.dense<int32_t>(kLogitPosition, DType::i32, {p.maxLogitRows});
  p.logitToken = check.dense<int32_t>(kLogitToken, DType::i32, {p.maxLogitRows});
  require(check.has(kLogitRows) == check.has(kLogitPosition) && check.has(kLogitRows) == check.has(kLogitToken),
          "step_plan: logit_rows, logit_position and logit_token go together");
  p.invFreq = check.dense<const float>(kInvFreq, DType::f32, {kAnySize});
  p.history = check.dense<int32_t>(kHistory, DType::i32, {kAnySize, kAnySize});
  p.historyStride = check.size(kHistory, 1);
  const int64_t slots = check.size(kLengths, 0), rows = check.size(kHistory, 0);
  p.lengths = check.dense<int32_t>(kLengths, DType::i32, {slots});
  check.requireArg(kHistory, rows == slots || rows == slots + 1, "must have a row a slot, and one more at most");
  p.spareSlot = rows > slots ? static_cast<int32_t>(slots) : -1;
  p.tokens = check.dense<int32_t>(kTokens, DType::i32, {p.capacity});
  p.positions = check.dense<int32_t>(kPositions, DType::i32, {p.capacity});
  p.rowSlot = check.dense<int32_t>(kRowSlot, DType::i32, {p.capacity});
  p.cosSin = check.dense<float>(kCosSin, DType::f32, {p.capacity, p.rope});
  p.splits = check.dense<int32_t>(kSplits, DType::i32, {p.maxSplits, 2});
  p.rotaryScale = static_cast<float>(check.scalar(kRotaryScale));
  p.ahead = static_cast<int32_t>(check.integer(kAhead, 0, 1 << 16));
}

size_t threadScratch(const void*) { return 0; }

}  // namespace

const OpSpec kStepPlanOp = {"step_plan", kTensors, kNumArgs, kScalars, kNumScalarArgs, prepare, threadScratch,
                            LONGCAT_CPU_BODIES(step_plan), LONGCAT_CUDA_BODY(step_plan)};

}  // namespace longcat
