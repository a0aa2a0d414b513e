// moe_route: its arguments and their checks.
#include "ops/moe_route/params.h"

#include "ops/check.h"

namespace longcat {
LONGCAT_DECLARE_BODIES(moe_route)
extern const OpSpec kMoeRouteOp;

namespace {

enum Arg {
  kH, kClassifier, kBias, kScores, kIds, kWeights, kIdentityWeight, kFfnCount, kExpertStart, kPlanRow, kSlotPlan, kRows, kNumArgs
};
const TensorArg kTensors[kNumArgs] = {{"h", Use::in, false, true},
                                      {"classifier"},
                                      {"bias"},
                                      {"scores", Use::out},
                                      {"ids", Use::out},
                                      {"weights", Use::out},
                                      {"identity_weight", Use::out},
                                      {"ffn_count", Use::out},
                                      {"expert_start", Use::out, true},
                                      {"plan_row", Use::out, true},
                                      {"slot_plan", Use::out, true},
                                      {"rows"}};
enum ScalarArg { kExperts, kFactor, kNumScalarArgs };
const char* const kScalars[kNumScalarArgs] = {"experts", "factor"};

void prepare(const OpArgs& args, void* storage) {
  const ArgCheck check(kMoeRouteOp, args);
  auto& p = paramsAt<MoeRouteParams>(storage);
  p.capacity = check.size(kH, 0);
  p.activation = check.activation();
  p.classifier = check.weight(kClassifier, -1, kAnySize, check.size(kH, 1));
  p.experts = check.integer(kExperts, 1, p.classifier.rows);
  p.factor = static_cast<float>(check.scalar(kFactor));
  p.topK = check.size(kIds, 1);
  const int64_t all = p.classifier.rows, rows = p.capacity, k = p.topK;
  check.requireArg(kIds, k >= 1 && k <= all, "must choose between one and all experts");
  check.requireArg(kIds, rows * k <= INT32_MAX, "has more entries than an int32 can number");
  p.h = check.activations(kH, {rows, kAnySize});
  p.bias = check.weight(kBias, -1, 1, all);
  p.scores = check.dense<float>(kScores, DType::f32, {rows, all});
  p.ids = check.dense<int32_t>(kIds, DType::i32, {rows, k});
  p.weights = check.dense<float>(kWeights, DType::f32, {rows, k});
  p.identityWeight = check.dense<float>(kIdentityWeight, DType::f32, {rows});
  p.ffnCount = check.dense<int32_t>(kFfnCount, DType::i32, {rows});
  const bool plans = check.has(kExpertStart);
  require(check.has(kPlanRow) == plans && check.has(kSlotPlan) == plans, "expert_start, plan_row and slot_plan come together or not at all");
  p.expertStart = check.dense<int32_t>(kExpertStart, DType::i32, {p.experts + 1});
  p.planRow = check.dense<int32_t>(kPlanRow, DType::i32, {rows * k});
  p.slotPlan = check.dense<int32_t>(kSlotPlan, DType::i32, {rows, k});
  p.rows = check.dense<const int32_t>(kRows, DType::i32, {1});
}

/// The K best scores of the row at hand; in the plan, a place for each expert.
size_t threadScratch(const void* params) {
  const auto& p = *static_cast<const MoeRouteParams*>(params);
  const auto floats = static_cast<size_t>(p.topK), places = static_cast<size_t>(p.experts);
  return (floats > places ? floats : places) * 4;
}

}  // namespace

const OpSpec kMoeRouteOp = {"moe_route", kTensors, kNumArgs, kScalars, kNumScalarArgs, prepare, threadScratch,
                            LONGCAT_CPU_BODIES(moe_route), LONGCAT_CUDA_BODY(moe_route)};

}  // namespace longcat
