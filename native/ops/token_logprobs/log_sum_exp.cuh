// log Σ exp over a row of logits by one block, as `token_logprobs` and `sample` both need it: the same bits in both.
#pragma once

#include <cstdint>

#include "cuda/reduce.cuh"
#include "ops/token_logprobs/log_sum_exp.h"

namespace longcat::cuda {

constexpr int kLogSumThreads = 1024;  // of the block: the order of the sum is given by it and the number of logits alone

struct LogSumShared {
  float maxima[32];
  double sums[32];
};

/// visit(logit) for this thread's logits, in a fixed order; four at a time where the row is aligned.
template <class F>
__device__ __forceinline__ void forLogits(const float* logits, int n, const F& visit) {
  const bool aligned = (reinterpret_cast<uintptr_t>(logits) & 15) == 0;
  const int quads = (n + 3) / 4;
#pragma unroll 4
  for (int q = threadIdx.x; q < quads; q += kLogSumThreads) {
    if (aligned && 4 * q + 3 < n) {
      const float4 v = *reinterpret_cast<const float4*>(logits + 4 * q);
      visit(v.x), visit(v.y), visit(v.z), visit(v.w);
    } else {
      for (int i = 4 * q; i < n && i < 4 * q + 4; ++i) visit(logits[i]);
    }
  }
}

/// Of n logits, in float64: maximum + log Σ exp(logit − maximum). A NaN counts as −∞; all −∞ gives −∞. To every thread.
__device__ __noinline__ inline double blockLogSumExp(const float* logits, int n, LogSumShared& shared) {
  const float lowest = __int_as_float(0xff800000);
  float max = lowest;
  forLogits(logits, n, [&](float v) { max = v > max ? v : max; });
  max = blockMax(max, lowest, shared.maxima);
  if (isinf(max)) return max;
  double sum = 0;
  forLogits(logits, n, [&](float v) {
    if (!isnan(v)) sum += exp(static_cast<double>(v) - static_cast<double>(max));
  });
  return static_cast<double>(max) + log(blockSum(sum, shared.sums));
}

/// logit − logSumExp for one id, the floor for −∞ and NaN.
__device__ inline float logprobOnDevice(float logit, double logSum) {
  const double logprob = static_cast<double>(logit) - logSum;
  return logprob > static_cast<double>(kLogprobFloor) ? static_cast<float>(logprob) : kLogprobFloor;
}

}  // namespace longcat::cuda
