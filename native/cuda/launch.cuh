// Launching kernels: grid sizes, shared memory beyond 48 KB, errors checked. Launches allocate nothing and wait for nothing.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cuda/check.h"
#include "cuda/context.h"

namespace longcat::cuda {

/// kernel<<<grid, threads, sharedBytes>>>(arguments…) on the context's stream.
template <class... Params, class... Arguments>
void launch(const CudaContext& context, void (*kernel)(Params...), dim3 grid, int threads, size_t sharedBytes, Arguments&&... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  if (sharedBytes > (48u << 10))
    LONGCAT_CUDA(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(sharedBytes)));
  kernel<<<grid, threads, sharedBytes, context.stream>>>(static_cast<Params>(arguments)...);
  LONGCAT_CUDA(cudaGetLastError());
}

/// Blocks for a persistent kernel: `perMultiprocessor` on each, but no more than there is work.
inline int persistentGrid(const CudaContext& context, int64_t work, int perMultiprocessor = 1) {
  return static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(work, static_cast<int64_t>(context.multiprocessors) * perMultiprocessor)));
}

inline int64_t ceilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace longcat::cuda
