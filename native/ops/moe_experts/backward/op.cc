// moe_experts_backward: its arguments and their checks.
#include "ops/moe_experts/backward/params.h"

#include "ops/check.h"

namespace longcat {
LONGCAT_DECLARE_CPU(moe_experts_backward)
extern const OpSpec kMoeExpertsBackwardOp;

namespace {

enum Arg {
  kH, kGate, kDGate, kUp, kDUp, kDown, kDDown, kWeights, kIdentityWeight, kExpertStart, kPlanRow, kSlotPlan, kDOut, kDH, kDWeights, kGateRows, kUpRows,
  kHiddenRows, kPartial, kRows, kNumArgs
};
const TensorArg kTensors[kNumArgs] = {{"h"},
                                      {"gate"},
                                      {"d_gate", Use::inout},
                                      {"up"},
                                      {"d_up", Use::inout},
                                      {"down"},
                                      {"d_down", Use::inout},
                                      {"weights"},
                                      {"identity_weight"},
                                      {"expert_start"},
                                      {"plan_row"},
                                      {"slot_plan"},
                                      {"d_out"},
                                      {"d_h", Use::out},
                                      {"d_weights", Use::out},
                                      {"gate_rows", Use::out},
                                      {"up_rows", Use::out},
                                      {"hidden_rows", Use::out},
                                      {"partial", Use::out},
                                      {"rows"}};

void prepare(const OpArgs& args, void* storage) {
  const ArgCheck check(kMoeExpertsBackwardOp, args);
  auto& p = paramsAt<MoeExpertsBackwardParams>(storage);
  p.capacity = check.size(kH, 0);
  p.topK = check.size(kWeights, 1);
  const int64_t width = check.size(kH, 1), ffn = check.size(kGateRows, 1), entries = p.capacity * p.topK;
  p.h = check.dense<const float>(kH, DType::f32, {p.capacity, width});
  p.gate = trainableStack(check, kGate, kDGate, kAnySize, ffn, width);
  p.up = trainableStack(check, kUp, kDUp, p.gate.weight.count, ffn, width);
  p.down = trainableStack(check, kDown, kDDown, p.gate.weight.count, width, ffn);
  p.weights = check.dense<const float>(kWeights, DType::f32, {p.capacity, p.topK});
  p.identityWeight = check.dense<const float>(kIdentityWeight, DType::f32, {p.capacity});
  p.expertStart = check.dense<const int32_t>(kExpertStart, DType::i32, {p.gate.weight.count + 1});
  p.planRow = check.dense<const int32_t>(kPlanRow, DType::i32, {entries});
  p.slotPlan = check.dense<const int32_t>(kSlotPlan, DType::i32, {p.capacity, p.topK});
  p.dOut = check.dense<const float>(kDOut, DType::f32, {p.capacity, width});
  p.dH = check.dense<float>(kDH, DType::f32, {p.capacity, width});
  p.dWeights = check.dense<float>(kDWeights, DType::f32, {p.capacity, p.topK});
  p.gateRows = check.dense<float>(kGateRows, DType::f32, {entries, ffn});
  p.upRows = check.dense<float>(kUpRows, DType::f32, {entries, ffn});
  p.hiddenRows = check.dense<float>(kHiddenRows, DType::f32, {entries, ffn});
  p.partial = check.dense<float>(kPartial, DType::f32, {entries, width});
  p.rows = check.dense<const int32_t>(kRows, DType::i32, {1});
}

size_t threadScratch(const void*) { return 0; }

}  // namespace

const OpSpec kMoeExpertsBackwardOp = {"moe_experts_backward", kTensors, kNumArgs, nullptr, 0, prepare, threadScratch,
                                      LONGCAT_CPU_BODIES(moe_experts_backward), nullptr};

}  // namespace longcat
