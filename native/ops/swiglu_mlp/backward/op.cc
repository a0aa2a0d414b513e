// swiglu_mlp_backward: its arguments and their checks.
#include "ops/swiglu_mlp/backward/params.h"

#include "ops/check.h"

namespace longcat {
LONGCAT_DECLARE_CPU(swiglu_mlp_backward)
extern const OpSpec kSwigluMlpBackwardOp;

namespace {

enum Arg { kX, kGate, kDGate, kUp, kDUp, kDown, kDDown, kDOut, kDX, kGateRows, kUpRows, kHiddenRows, kRows, kNumArgs };
const TensorArg kTensors[kNumArgs] = {{"x"}, {"gate"}, {"d_gate", Use::inout}, {"up"}, {"d_up", Use::inout}, {"down"}, {"d_down", Use::inout},
                                      {"d_out"}, {"d_x", Use::out}, {"gate_rows", Use::out}, {"up_rows", Use::out}, {"hidden_rows", Use::out}, {"rows"}};

void prepare(const OpArgs& args, void* storage) {
  const ArgCheck check(kSwigluMlpBackwardOp, args);
  auto& p = paramsAt<SwigluMlpBackwardParams>(storage);
  p.capacity = check.size(kX, 0);
  const int64_t width = check.size(kX, 1), ffn = check.size(kGateRows, 1);
  p.x = check.dense<const float>(kX, DType::f32, {p.capacity, width});
  p.gate = trainable(check, kGate, kDGate, ffn, width);
  p.up = trainable(check, kUp, kDUp, ffn, width);
  p.down = trainable(check, kDown, kDDown, width, ffn);
  p.dOut = check.dense<const float>(kDOut, DType::f32, {p.capacity, width});
  p.dX = check.dense<float>(kDX, DType::f32, {p.capacity, width});
  p.gateRows = check.dense<float>(kGateRows, DType::f32, {p.capacity, ffn});
  p.upRows = check.dense<float>(kUpRows, DType::f32, {p.capacity, ffn});
  p.hiddenRows = check.dense<float>(kHiddenRows, DType::f32, {p.capacity, ffn});
  p.rows = check.dense<const int32_t>(kRows, DType::i32, {1});
}

size_t threadScratch(const void*) { return 0; }

}  // namespace

const OpSpec kSwigluMlpBackwardOp = {"swiglu_mlp_backward", kTensors, kNumArgs, nullptr, 0, prepare, threadScratch,
                                     LONGCAT_CPU_BODIES(swiglu_mlp_backward), nullptr};

}  // namespace longcat
