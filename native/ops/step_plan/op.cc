// step_plan: its arguments and their checks.
#include "ops/step_plan/params.h"

#include "ops/check.h"

namespace longcat {
LONGCAT_DECLARE_BODIES(step_plan)
extern const OpSpec kStepPlanOp;

namespace {

enum Arg { kCounts, kTokenIds, kPositions, kSeqStart, kSeqSlot, kInvFreq, kHistory, kTokens, kRowSlot, kCosSin, kSplits, kNumArgs };
const TensorArg kTensors[kNumArgs] = {
    {"counts", Use::inout}, {"token_ids"},           {"positions"},            {"seq_start"},         {"seq_slot"},           {"inv_freq"},
    {"history", Use::inout}, {"tokens", Use::out}, {"row_slot", Use::out}, {"cos_sin", Use::out}, {"splits", Use::out}};
const char* const kScalars[] = {"rotary_scale"};

void prepare(const OpArgs& args, void* storage) {
  const ArgCheck check(kStepPlanOp, args);
  auto& p = paramsAt<StepPlanParams>(storage);
  p.capacity = check.size(kTokenIds, 0);
  p.maxSequences = check.size(kSeqSlot, 0);
  p.maxSplits = check.size(kSplits, 0);
  p.rope = 2 * check.size(kInvFreq, 0);
  p.counts = check.dense<int32_t>(kCounts, DType::i32, {8});
  p.tokenIds = check.dense<const int32_t>(kTokenIds, DType::i32, {p.capacity});
  p.positions = check.dense<const int32_t>(kPositions, DType::i32, {p.capacity});
  p.seqStart = check.dense<const int32_t>(kSeqStart, DType::i32, {p.maxSequences + 1});
  p.seqSlot = check.dense<const int32_t>(kSeqSlot, DType::i32, {p.maxSequences});
  p.invFreq = check.dense<const float>(kInvFreq, DType::f32, {kAnySize});
  p.history = check.dense<int32_t>(kHistory, DType::i32, {kAnySize, kAnySize});
  p.historyStride = check.size(kHistory, 1);
  p.tokens = check.dense<int32_t>(kTokens, DType::i32, {p.capacity});
  p.rowSlot = check.dense<int32_t>(kRowSlot, DType::i32, {p.capacity});
  p.cosSin = check.dense<float>(kCosSin, DType::f32, {p.capacity, p.rope});
  p.splits = check.dense<int32_t>(kSplits, DType::i32, {p.maxSplits, 2});
  p.rotaryScale = static_cast<float>(check.scalar(0));
}

size_t threadScratch(const void*) { return 0; }

}  // namespace

const OpSpec kStepPlanOp = {"step_plan", kTensors, kNumArgs, kScalars, 1, prepare, threadScratch, LONGCAT_CPU_BODIES(step_plan), LONGCAT_CUDA_BODY(step_plan)};

}  // namespace longcat
