// adamw: its arguments and their checks.
#include "ops/adamw/params.h"

#include <cmath>

#include "ops/check.h"

namespace longcat {
LONGCAT_DECLARE_CPU(adamw)
extern const OpSpec kAdamwOp;

namespace {

enum Arg { kWeight, kGradient, kMomentum, kVariance, kFactor, kNumArgs };
const TensorArg kTensors[kNumArgs] = {{"weight", Use::inout}, {"gradient"}, {"momentum", Use::inout}, {"variance", Use::inout}, {"factor"}};
enum ScalarArg { kRate, kBeta1, kBeta2, kEpsilon, kDecay, kStep, kNumScalarArgs };
const char* const kScalars[kNumScalarArgs] = {"rate", "beta1", "beta2", "epsilon", "decay", "step"};

void prepare(const OpArgs& args, void* storage) {
  const ArgCheck check(kAdamwOp, args);
  auto& p = paramsAt<AdamwParams>(storage);
  p.count = check.size(kWeight, 0);
  p.weight = check.dense<float>(kWeight, DType::f32, {p.count});
  p.gradient = check.dense<const float>(kGradient, DType::f32, {p.count});
  p.momentum = check.dense<float>(kMomentum, DType::f32, {p.count});
  p.variance = check.dense<float>(kVariance, DType::f32, {p.count});
  p.factor = check.dense<const float>(kFactor, DType::f32, {1});
  const double beta1 = check.scalar(kBeta1), beta2 = check.scalar(kBeta2), step = static_cast<double>(check.integer(kStep, 1, INT64_C(1) << 53));
  require(beta1 >= 0 && beta1 < 1 && beta2 >= 0 && beta2 < 1, "adamw: beta1 and beta2 must be from 0 to below 1");
  p.rate = static_cast<float>(check.scalar(kRate));
  p.beta1 = static_cast<float>(beta1);
  p.beta2 = static_cast<float>(beta2);
  p.epsilon = static_cast<float>(check.scalar(kEpsilon));
  p.decay = static_cast<float>(check.scalar(kDecay));
  p.momentumScale = static_cast<float>(1 / (1 - std::pow(beta1, step)));
  p.varianceScale = static_cast<float>(1 / (1 - std::pow(beta2, step)));
}

size_t threadScratch(const void*) { return 0; }

}  // namespace

const OpSpec kAdamwOp = {"adamw", kTensors, kNumArgs, kScalars, kNumScalarArgs, prepare, threadScratch, LONGCAT_CPU_BODIES(adamw), nullptr};

}  // namespace longcat
