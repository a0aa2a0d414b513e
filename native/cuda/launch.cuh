// Launching kernels: grid sizes, shared memory beyond 48 KB, errors checked. Launches allocate nothing and wait for nothing.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cuda/check.h"
#include "cuda/context.h"

namespace longcat::cuda {

/// kernel<<<grid, threads, sharedBytes>>>(arguments…) on the context's stream. On capability 9.0 the kernel may begin while the one before it ends
/// (dependent.cuh); PTX for newer cards has no such waiting in it, so there a launch is an ordinary one.
template <class... Params, class... Arguments>
void launch(const CudaContext& context, void (*kernel)(Params...), dim3 grid, int threads, size_t sharedBytes, Arguments&&... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  if (sharedBytes > (48u << 10))
    LONGCAT_CUDA(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(sharedBytes)));
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = sharedBytes;
  config.stream = context.stream;
  config.attrs = &early;
  config.numAttrs = context.capability == 90 ? 1 : 0;
  LONGCAT_CUDA(cudaLaunchKernelEx(&config, kernel, static_cast<Params>(arguments)...));
}

/// Blocks for a persistent kernel: `perMultiprocessor` on each, but no more than there is work.
inline int persistentGrid(const CudaContext& context, int64_t work, int perMultiprocessor = 1) {
  return static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(work, static_cast<int64_t>(context.multiprocessors) * perMultiprocessor)));
}

inline int64_t ceilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace longcat::cuda
