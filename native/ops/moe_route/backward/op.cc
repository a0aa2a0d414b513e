// moe_route_backward: its arguments and their checks.
#include "ops/moe_route/backward/params.h"

#include "ops/check.h"

namespace longcat {
LONGCAT_DECLARE_CPU(moe_route_backward)
extern const OpSpec kMoeRouteBackwardOp;

namespace {

enum Arg { kH, kClassifier, kDClassifier, kScores, kIds, kDWeights, kDScore, kDH, kDLogits, kRows, kNumArgs };
const TensorArg kTensors[kNumArgs] = {{"h"}, {"classifier"}, {"d_classifier", Use::inout}, {"scores"}, {"ids"}, {"d_weights"},
                                      {"d_score", Use::in, true}, {"d_h", Use::inout}, {"d_logits", Use::out}, {"rows"}};
const char* const kScalars[] = {"factor"};

void prepare(const OpArgs& args, void* storage) {
  const ArgCheck check(kMoeRouteBackwardOp, args);
  auto& p = paramsAt<MoeRouteBackwardParams>(storage);
  p.capacity = check.size(kH, 0);
  const int64_t T = p.capacity, hidden = check.size(kH, 1), all = check.size(kScores, 1);
  p.topK = check.size(kIds, 1);
  p.factor = static_cast<float>(check.scalar(0));
  p.h = check.dense<const float>(kH, DType::f32, {T, hidden});
  p.classifier = trainable(check, kClassifier, kDClassifier, all, hidden);
  p.scores = check.dense<const float>(kScores, DType::f32, {T, all});
  p.ids = check.dense<const int32_t>(kIds, DType::i32, {T, p.topK});
  p.dWeights = check.dense<const float>(kDWeights, DType::f32, {T, p.topK});
  p.dScore = check.dense<const float>(kDScore, DType::f32, {all});
  p.dH = check.dense<float>(kDH, DType::f32, {T, hidden});
  p.dLogits = check.dense<float>(kDLogits, DType::f32, {T, all});
  p.rows = check.dense<const int32_t>(kRows, DType::i32, {1});
}

size_t threadScratch(const void*) { return 0; }

}  // namespace

const OpSpec kMoeRouteBackwardOp = {"moe_route_backward", kTensors, kNumArgs, kScalars, 1, prepare, threadScratch,
                                    LONGCAT_CPU_BODIES(moe_route_backward), nullptr};

}  // namespace longcat
