// cross_entropy: its arguments and their checks.
#include "ops/cross_entropy/params.h"

#include "ops/check.h"

namespace longcat {
LONGCAT_DECLARE_CPU(cross_entropy)
extern const OpSpec kCrossEntropyOp;

namespace {

enum Arg { kLogits, kTargets, kScale, kLoss, kDLogits, kRows, kNumArgs };
const TensorArg kTensors[kNumArgs] = {{"logits"}, {"targets"}, {"scale"}, {"loss", Use::out}, {"d_logits", Use::out, true}, {"rows"}};

void prepare(const OpArgs& args, void* storage) {
  const ArgCheck check(kCrossEntropyOp, args);
  auto& p = paramsAt<CrossEntropyParams>(storage);
  p.capacity = check.size(kLogits, 0);
  p.vocabulary = check.size(kLogits, 1);
  p.logits = check.dense<const float>(kLogits, DType::f32, {p.capacity, p.vocabulary});
  p.targets = check.dense<const int32_t>(kTargets, DType::i32, {p.capacity});
  p.scale = check.dense<const float>(kScale, DType::f32, {1});
  p.loss = check.dense<float>(kLoss, DType::f32, {p.capacity});
  p.dLogits = check.dense<float>(kDLogits, DType::f32, {p.capacity, p.vocabulary});
  p.rows = check.dense<const int32_t>(kRows, DType::i32, {1});
}

size_t threadScratch(const void*) { return 0; }

}  // namespace

const OpSpec kCrossEntropyOp = {"cross_entropy", kTensors, kNumArgs, nullptr, 0, prepare, threadScratch, LONGCAT_CPU_BODIES(cross_entropy), nullptr};

}  // namespace longcat
