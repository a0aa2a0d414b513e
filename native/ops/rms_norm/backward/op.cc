// rms_norm_backward: its arguments and their checks.
#include "ops/rms_norm/backward/params.h"

#include "ops/check.h"

namespace longcat {
LONGCAT_DECLARE_CPU(rms_norm_backward)
extern const OpSpec kRmsNormBackwardOp;

namespace {

enum Arg { kSum, kWeight, kDWeight, kDOut, kDOut2, kDResidual, kDSum, kScales, kRows, kNumArgs };
const TensorArg kTensors[kNumArgs] = {{"sum"}, {"weight"}, {"d_weight", Use::inout}, {"d_out"}, {"d_out2", Use::in, true},
                                      {"d_residual", Use::in, true}, {"d_sum", Use::out}, {"scales", Use::out}, {"rows"}};
const char* const kScalars[] = {"eps"};

void prepare(const OpArgs& args, void* storage) {
  const ArgCheck check(kRmsNormBackwardOp, args);
  auto& p = paramsAt<RmsNormBackwardParams>(storage);
  p.capacity = check.size(kSum, 0);
  p.width = check.size(kSum, 1);
  p.sum = check.dense<const float>(kSum, DType::f32, {p.capacity, p.width});
  p.weight = trainable(check, kWeight, kDWeight, 1, p.width);
  p.dOut = check.dense<const float>(kDOut, DType::f32, {p.capacity, p.width});
  p.dOut2 = check.dense<const float>(kDOut2, DType::f32, {p.capacity, p.width});
  p.dResidual = check.dense<const float>(kDResidual, DType::f32, {p.capacity, p.width});
  p.dSum = check.dense<float>(kDSum, DType::f32, {p.capacity, p.width});
  p.scales = check.dense<float>(kScales, DType::f32, {p.capacity});
  p.rows = check.dense<const int32_t>(kRows, DType::i32, {1});
  p.eps = static_cast<float>(check.scalar(0));
}

/// A row of dout + dout2.
size_t threadScratch(const void* params) { return static_cast<size_t>(static_cast<const RmsNormBackwardParams*>(params)->width) * sizeof(float); }

}  // namespace

const OpSpec kRmsNormBackwardOp = {"rms_norm_backward", kTensors, kNumArgs, kScalars, 1, prepare, threadScratch,
                                   LONGCAT_CPU_BODIES(rms_norm_backward), nullptr};

}  // namespace longcat
