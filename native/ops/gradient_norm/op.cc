// gradient_norm: its arguments and their checks.
#include "ops/gradient_norm/params.h"

#include "ops/check.h"

namespace longcat {
LONGCAT_DECLARE_CPU(gradient_norm)
extern const OpSpec kGradientNormOp;

namespace {

enum Arg { kGradients, kPartial, kNorm, kFactor, kNumArgs };
const TensorArg kTensors[kNumArgs] = {{"gradients"}, {"partial", Use::out}, {"norm", Use::out}, {"factor", Use::out}};
const char* const kScalars[] = {"most"};

void prepare(const OpArgs& args, void* storage) {
  const ArgCheck check(kGradientNormOp, args);
  auto& p = paramsAt<GradientNormParams>(storage);
  p.count = check.size(kGradients, 0);
  p.gradients = check.dense<const float>(kGradients, DType::f32, {p.count});
  p.chunks = check.size(kPartial, 0);
  p.partial = check.dense<float>(kPartial, DType::f32, {p.chunks});
  p.norm = check.dense<float>(kNorm, DType::f32, {1});
  p.factor = check.dense<float>(kFactor, DType::f32, {1});
  p.most = check.scalar(0);
  check.requireArg(kPartial, p.chunks > 0, "has no numbers");
  require(p.most >= 0, "gradient_norm: most must not be negative, is " + std::to_string(p.most));
}

size_t threadScratch(const void*) { return 0; }

}  // namespace

const OpSpec kGradientNormOp = {"gradient_norm", kTensors, kNumArgs, kScalars, 1, prepare, threadScratch, LONGCAT_CPU_BODIES(gradient_norm), nullptr};

}  // namespace longcat
