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
                                      {"weights"},
                                      {"identity_weight"},
                                      {"expert_start"},
                                      {"plan_row"},
                                      {"slot_plan"},
                                      {"hidden", Use::out, false, true},
                                      {"partial", Use::out, false, true},
                                      {"out", Use::out, false, true},
                                      {"rows"}};

void prepare(const OpArgs& args, void* storage) {
  const ArgCheck check(kMoeExpertsOp, args);
  auto& p = paramsAt<MoeExpertsParams>(storage);
  p.capacity = check.size(kH, 0);
  p.activation = check.activation();
  p.topK = check.size(kWeights, 1);
  const int64_t width = check.size(kH, 1), ffn = check.size(kHidden, 1), entries = p.capacity * p.topK;
  p.h = check.activations(kH, {p.capacity, width});
  p.gate = check.stack(kGate, kGateScale, kAnySize, ffn, width);
  p.up = check.stack(kUp, kUpScale, p.gate.count, ffn, width);
  p.down = check.stack(kDown, kDownScale, p.gate.count, width, ffn);
  p.weights = check.dense<const float>(kWeights, DType::f32, {p.capacity, p.topK});
  p.identityWeight = check.dense<const float>(kIdentityWeight, DType::f32, {p.capacity});
  p.expertStart = check.dense<const int32_t>(kExpertStart, DType::i32, {p.gate.count + 1});
  p.planRow = check.dense<const int32_t>(kPlanRow, DType::i32, {entries});
  p.slotPlan = check.dense<const int32_t>(kSlotPlan, DType::i32, {p.capacity, p.topK});
  p.hidden = check.activations(kHidden, {entries, ffn});
  p.partial = check.activations(kPartial, {entries, width});
  p.out = check.activations(kOut, {p.capacity, width});
  p.rows = check.dense<const int32_t>(kRows, DType::i32, {1});
}

size_t threadScratch(const void* params) { return expertScratchBytes(static_cast<const MoeExpertsParams*>(params)->gate.count); }

}  // namespace

const OpSpec kMoeExpertsOp = {"moe_experts", kTensors, kNumArgs, nullptr, 0, prepare, threadScratch, LONGCAT_CPU_BODIES(moe_experts), LONGCAT_CUDA_BODY(moe_experts)};

}  // namespace longcat
