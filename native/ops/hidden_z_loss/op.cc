// hidden_z_loss: its arguments and their checks.
#include "ops/hidden_z_loss/params.h"

#include "ops/check.h"

namespace longcat {
LONGCAT_DECLARE_CPU(hidden_z_loss)
extern const OpSpec kHiddenZLossOp;

namespace {

enum Arg { kX, kScale, kLoss, kDX, kRows, kNumArgs };
const TensorArg kTensors[kNumArgs] = {{"x"}, {"scale"}, {"loss", Use::out}, {"d_x", Use::inout}, {"rows"}};

void prepare(const OpArgs& args, void* storage) {
  const ArgCheck check(kHiddenZLossOp, args);
  auto& p = paramsAt<HiddenZLossParams>(storage);
  p.capacity = check.size(kX, 0);
  p.width = check.size(kX, 1);
  p.x = check.dense<const float>(kX, DType::f32, {p.capacity, p.width});
  p.scale = check.dense<const float>(kScale, DType::f32, {1});
  p.loss = check.dense<float>(kLoss, DType::f32, {p.capacity});
  p.dX = check.dense<float>(kDX, DType::f32, {p.capacity, p.width});
  p.rows = check.dense<const int32_t>(kRows, DType::i32, {1});
}

/// A row of |x|, then of its exponentials.
size_t threadScratch(const void* params) { return static_cast<size_t>(static_cast<const HiddenZLossParams*>(params)->width) * sizeof(float); }

}  // namespace

const OpSpec kHiddenZLossOp = {"hidden_z_loss", kTensors, kNumArgs, nullptr, 0, prepare, threadScratch, LONGCAT_CPU_BODIES(hidden_z_loss), nullptr};

}  // namespace longcat
