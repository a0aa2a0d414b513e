// token_logprobs on a GPU: one block a row.
#include "cuda/dependent.cuh"
#include "cuda/launch.cuh"
#include "ops/op.h"
#include "ops/token_logprobs/log_sum_exp.cuh"
#include "ops/token_logprobs/params.h"

namespace longcat::cuda {
namespace {

__global__ void __launch_bounds__(kLogSumThreads, 1) tokenLogprobsKernel(const TokenLogprobsParams p) {
  awaitPrevious();
  __shared__ LogSumShared shared;
  const int64_t live = *p.rows < p.capacity ? *p.rows : p.capacity;
  for (int64_t r = blockIdx.x; r < live; r += gridDim.x) {
    const float* logits = p.logits + r * p.vocabulary;
    const int32_t target = p.targets[r];
    float logprob = 0.0f;
    if (target >= 0 && target < p.vocabulary)  // alike in the whole block
      logprob = logprobOnDevice(logits[target], blockLogSumExp(logits, static_cast<int>(p.vocabulary), shared));
    if (threadIdx.x == 0) p.out[r] = logprob;
  }
}

}  // namespace

void token_logprobs(const void* params, const CudaContext& context) {
  const auto& p = *static_cast<const TokenLogprobsParams*>(params);
  launch(context, tokenLogprobsKernel, persistentGrid(context, p.capacity, 4), kLogSumThreads, 0, p);
}

}  // namespace longcat::cuda
