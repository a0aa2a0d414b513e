// swiglu_mlp: its arguments and their checks.
#include "ops/swiglu_mlp/params.h"

#include "cpu/swiglu_plan.h"
#include "ops/check.h"

namespace longcat {
LONGCAT_DECLARE_BODIES(swiglu_mlp)
extern const OpSpec kSwigluMlpOp;

namespace {

enum Arg { kX, kGate, kGateScale, kUp, kUpScale, kDown, kDownScale, kHidden, kOut, kRows, kNumArgs };
const TensorArg kTensors[kNumArgs] = {{"x", Use::in, false, true},
                                      {"gate"},
                                      {"gate_scale", Use::in, true},
                                      {"up"},
                                      {"up_scale", Use::in, true},
                                      {"down"},
                                      {"down_scale", Use::in, true},
                                      {"hidden", Use::out, false, true},
                                      {"out", Use::out, false, true},
                                      {"rows"}};

void prepare(const OpArgs& args, void* storage) {
  const ArgCheck check(kSwigluMlpOp, args);
  auto& p = paramsAt<SwigluMlpParams>(storage);
  p.capacity = check.size(kX, 0);
  p.activation = check.activation();
  const int64_t width = check.size(kX, 1), ffn = check.size(kHidden, 1);
  p.x = check.activations(kX, {p.capacity, width});
  p.gate = check.weight(kGate, kGateScale, ffn, width);
  p.up = check.weight(kUp, kUpScale, ffn, width);
  p.down = check.weight(kDown, kDownScale, width, ffn);
  p.hidden = check.activations(kHidden, {p.capacity, ffn});
  p.out = check.activations(kOut, {p.capacity, width});
  p.rows = check.dense<const int32_t>(kRows, DType::i32, {1});
}

size_t threadScratch(const void*) { return kSwigluScratchBytes; }

}  // namespace

const OpSpec kSwigluMlpOp = {"swiglu_mlp", kTensors, kNumArgs, nullptr, 0, prepare, threadScratch, LONGCAT_CPU_BODIES(swiglu_mlp), LONGCAT_CUDA_BODY(swiglu_mlp)};

}  // namespace longcat
