// token_logprobs: its arguments and their checks, and the sum that `sample` shares. Compiled once for every processor: float64
// exponentials are libm's, so the log-probabilities do not depend on the instruction set.
#include "ops/token_logprobs/params.h"

#include <cmath>
#include <limits>

#include "ops/check.h"
#include "ops/token_logprobs/log_sum_exp.h"

namespace longcat {
LONGCAT_DECLARE_BODIES(token_logprobs)
extern const OpSpec kTokenLogprobsOp;

double logSumExp(const float* logits, int64_t n) {
  float max = -std::numeric_limits<float>::infinity();
  for (int64_t i = 0; i < n; ++i)
    if (logits[i] > max) max = logits[i];
  if (std::isinf(max)) return max;
  double sum = 0;
  for (int64_t i = 0; i < n; ++i)
    if (!std::isnan(logits[i])) sum += std::exp(static_cast<double>(logits[i]) - static_cast<double>(max));
  return static_cast<double>(max) + std::log(sum);
}

float logprobOf(float logit, double logSum) {
  const double logprob = static_cast<double>(logit) - logSum;
  return logprob > kLogprobFloor ? static_cast<float>(logprob) : kLogprobFloor;  // NaN too: inf − inf
}

namespace {

enum Arg { kLogits, kTargets, kOut, kRows, kNumArgs };
const TensorArg kTensors[kNumArgs] = {{"logits"}, {"targets"}, {"out", Use::out}, {"rows"}};

void prepare(const OpArgs& args, void* storage) {
  const ArgCheck check(kTokenLogprobsOp, args);
  auto& p = paramsAt<TokenLogprobsParams>(storage);
  p.capacity = check.size(kLogits, 0);
  p.vocabulary = check.size(kLogits, 1);
  p.logits = check.dense<const float>(kLogits, DType::f32, {p.capacity, p.vocabulary});
  p.targets = check.dense<const int32_t>(kTargets, DType::i32, {p.capacity});
  p.out = check.dense<float>(kOut, DType::f32, {p.capacity});
  p.rows = check.dense<const int32_t>(kRows, DType::i32, {1});
}

size_t threadScratch(const void*) { return 0; }

}  // namespace

const OpSpec kTokenLogprobsOp = {"token_logprobs", kTensors, kNumArgs, nullptr, 0, prepare, threadScratch,
                                 LONGCAT_CPU_BODIES(token_logprobs), LONGCAT_CUDA_BODY(token_logprobs)};

}  // namespace longcat
