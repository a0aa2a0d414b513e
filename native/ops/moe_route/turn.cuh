// Which block of a choice chooses last: it makes the plan, so that no launch has to. The blocks are counted where the plan will say how many entries
// it has, and the logits' kernel on tensor cores, which runs before, sets the count to zero: no memory is kept for it, and calls on two streams do
// not meet.
#pragma once

#include "ops/moe_route/params.h"

namespace longcat::cuda {

/// By one thread of the logits' kernel, after it has waited for the kernel before it.
__device__ __forceinline__ void noneHasChosen(const MoeRouteParams& p) {
  if (p.expertStart) p.expertStart[p.experts] = 0;
}

/// Whether all other blocks of the grid (along x) have chosen, and what they wrote can be read. All threads call, once the block's choices are written.
__device__ __forceinline__ bool choseLast(const MoeRouteParams& p) {
  __syncthreads();
  bool last = false;
  if (threadIdx.x == 0) {
    __threadfence();
    last = atomicAdd(p.expertStart + p.experts, 1) == static_cast<int>(gridDim.x) - 1;
    __threadfence();
  }
  return __syncthreads_or(last);
}

}  // namespace longcat::cuda
