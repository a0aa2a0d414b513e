// linear_backward: its arguments and their checks.
#include "ops/linear/backward/params.h"

#include "ops/check.h"

namespace longcat {
LONGCAT_DECLARE_CPU(linear_backward)
extern const OpSpec kLinearBackwardOp;

namespace {

enum Arg { kX, kWeight, kDWeight, kBias, kDBias, kDOut, kDX, kRows, kNumArgs };
const TensorArg kTensors[kNumArgs] = {{"x"}, {"weight"}, {"d_weight", Use::inout}, {"bias", Use::in, true}, {"d_bias", Use::inout, true},
                                      {"d_out"}, {"d_x", Use::out}, {"rows"}};

void prepare(const OpArgs& args, void* storage) {
  const ArgCheck check(kLinearBackwardOp, args);
  auto& p = paramsAt<LinearBackwardParams>(storage);
  p.capacity = check.size(kX, 0);
  const int64_t inputs = check.size(kX, 1), outputs = check.size(kDOut, 1);
  p.x = check.rowsOf(kX, DType::f32, p.capacity, inputs, &p.xStride);
  p.weight = trainable(check, kWeight, kDWeight, outputs, inputs);
  p.bias = trainable(check, kBias, kDBias, 1, outputs);
  p.dOut = check.rowsOf(kDOut, DType::f32, p.capacity, outputs, &p.dOutStride);
  p.dX = check.rowsOf(kDX, DType::f32, p.capacity, inputs, &p.dXStride);
  p.rows = check.dense<const int32_t>(kRows, DType::i32, {1});
}

size_t threadScratch(const void*) { return 0; }

}  // namespace

const OpSpec kLinearBackwardOp = {"linear_backward", kTensors, kNumArgs, nullptr, 0, prepare, threadScratch, LONGCAT_CPU_BODIES(linear_backward), nullptr};

}  // namespace longcat
