// moe_experts: its arguments and their checks.
#include "ops/moe_experts/params.h"

#include "ops/check.h"
#include "ops/moe_experts/plan.h"

namespace longcat {
LONGCAT_DECLARE_BODIES(moe_experts)
extern const OpSpec kMoeExpertsOp;

namespace {

enum Arg {
  kH, kGate, kGateScale, kUp, kUpScale, kDown, kDownScale, kWeights, kIdentityWeight, kExpertStart, kPlanRow, kSlotPlan, kHidden, kPartial,
  kOut, kRows, kNumArgs
};
const TensorArg kTensors[kNumArgs] = {{"h", Use::in, false, true},
                                      {"gate"},
                                      {"gate_scale", Use::in, true},
                                      {"up"},
                                      {"up_scale", Use::in, true},
                                      {"down"},
                                      {"down_scale", Use::in, true},
                                      {"weights", Use::in, true},
                                      {"identity_weight", Use::in, true},
                                      {"expert_start"},
                                      {"plan_row"},
                                      {"slot_plan", Use::in, true},
                                      {"hidden", Use::out, false, true},
                                      {"partial", Use::out, false, true},
                                      {"out", Use::out, true, true},
                                      {"rows", Use::in, true}};
enum ScalarArg { kExpected, kNumScalarArgs };
const char* const kScalars[kNumScalarArgs] = {"expected"};

void prepare(const OpArgs& args, void* storage) {
  const ArgCheck check(kMoeExpertsOp, args);
  auto& p = paramsAt<MoeExpertsParams>(storage);
  p.capacity = check.size(kH, 0);
  p.activation = check.activation();
  const bool sums = check.has(kOut);
  for (int arg : {kWeights, kIdentityWeight, kSlotPlan, kRows}) {
    require(check.has(arg) == sums, "weights, identity_weight, slot_plan, rows and out come together or not at all");
  }
  p.topK = sums ? check.size(kWeights, 1) : 0;
  p.entries = sums ? p.capacity * p.topK : check.size(kPlanRow, 0);
  p.expected = check.integer(kExpected, 0, INT32_MAX);
  const int64_t width = check.size(kH, 1), ffn = check.size(kHidden, 1);
  p.h = check.activations(kH, {p.capacity, width});
  p.gate = check.stack(kGate, kGateScale, kAnySize, ffn, width);
  p.up = check.stack(kUp, kUpScale, p.gate.count, ffn, width);
  p.down = check.stack(kDown, kDownScale, p.gate.count, width, ffn);
  p.weights = check.dense<const float>(kWeights, DType::f32, {p.capacity, p.topK});
  p.identityWeight = check.dense<const float>(kIdentityWeight, DType::f32, {p.capacity});
  p.expertStart = check.dense<const int32_t>(kExpertStart, DType::i32, {p.gate.count + 1});
  p.planRow = check.dense<const int32_t>(kPlanRow, DType::i32, {p.entries});
  p.slotPlan = check.dense<const int32_t>(kSlotPlan, DType::i32, {p.capacity, p.topK});
  p.hidden = check.activations(kHidden, {p.entries, ffn});
  p.partial = check.activations(kPartial, {p.entries, width});
  p.out = check.activations(kOut, {p.capacity, width});
  p.rows = check.dense<const int32_t>(kRows, DType::i32, {1});
}

size_t threadScratch(const void* params) { return expertScratchBytes(static_cast<const MoeExpertsParams*>(params)->gate.count); }

}  // namespace

const OpSpec kMoeExpertsOp = {"moe_experts", kTensors, kNumArgs, kScalars, kNumScalarArgs, prepare, threadScratch,
                              LONGCAT_CPU_BODIES(moe_experts), LONGCAT_CUDA_BODY(moe_experts)};

}  // namespace longcat
