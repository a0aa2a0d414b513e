// Launching kernels: grid sizes, shared memory beyond 48 KB, errors checked. Launches allocate nothing and wait for nothing.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include "cuda/check.h"
#include "cuda/context.h"

namespace longcat::cuda {

/// How many blocks of what.
struct LaunchShape {
  dim3 grid;
  int threads;
  size_t sharedBytes = 0;
  unsigned cluster = 1;  // blocks along x that make a cluster, a divisor of grid.x, at most 8; more than one on Hopper only
};

/// A launch as the runtime wants it described. `dependent`: the kernel may begin while the one before it ends (dependent.cuh).
class LaunchConfig {
 public:
  template <class... Params>
  LaunchConfig(void (*kernel)(Params...), const LaunchShape& shape, bool dependent, cudaStream_t stream) {
    if (shape.sharedBytes > (48u << 10))
      LONGCAT_CUDA(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shape.sharedBytes)));
    config_.gridDim = shape.grid;
    config_.blockDim = dim3(static_cast<unsigned>(shape.threads));
    config_.dynamicSmemBytes = shape.sharedBytes;
    config_.stream = stream;
    config_.attrs = attributes_;
    if (dependent) add(cudaLaunchAttributeProgrammaticStreamSerialization).programmaticStreamSerializationAllowed = 1;
    if (shape.cluster > 1) add(cudaLaunchAttributeClusterDimension).clusterDim = {shape.cluster, 1, 1};
  }
  LaunchConfig(const LaunchConfig&) = delete;
  LaunchConfig& operator=(const LaunchConfig&) = delete;

  const cudaLaunchConfig_t* get() const { return &config_; }

 private:
  cudaLaunchAttributeValue& add(cudaLaunchAttributeID id) {
    cudaLaunchAttribute& attribute = attributes_[config_.numAttrs++];
    attribute.id = id;
    return attribute.val;
  }

  cudaLaunchAttribute attributes_[2] = {};
  cudaLaunchConfig_t config_ = {};
};

/// kernel(arguments…) on the context's stream. On capability 9.0 it is a dependent launch; PTX for newer cards has no such waiting in it, so there a
/// launch is an ordinary one.
template <class... Params, class... Arguments>
void launch(const CudaContext& context, void (*kernel)(Params...), const LaunchShape& shape, Arguments&&... arguments) {
  if (shape.grid.x == 0 || shape.grid.y == 0 || shape.grid.z == 0) return;
  const LaunchConfig config(kernel, shape, context.capability == 90, context.stream);
  LONGCAT_CUDA(cudaLaunchKernelEx(config.get(), kernel, static_cast<Params>(arguments)...));
}

/// How many of the shape's clusters the card holds at once.
template <class... Params>
int clustersAtOnce(void (*kernel)(Params...), const LaunchShape& shape) {
  int clusters = 0;
  LONGCAT_CUDA(cudaOccupancyMaxActiveClusters(&clusters, kernel, LaunchConfig(kernel, shape, false, nullptr).get()));
  return clusters;
}

/// kernel<<<grid, threads, sharedBytes>>>(arguments…), without clusters.
template <class... Params, class... Arguments>
void launch(const CudaContext& context, void (*kernel)(Params...), dim3 grid, int threads, size_t sharedBytes, Arguments&&... arguments) {
  launch(context, kernel, LaunchShape{grid, threads, sharedBytes}, std::forward<Arguments>(arguments)...);
}

/// Blocks for a persistent kernel: `perMultiprocessor` on each, but no more than there is work.
inline int persistentGrid(const CudaContext& context, int64_t work, int perMultiprocessor = 1) {
  return static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(work, static_cast<int64_t>(context.multiprocessors) * perMultiprocessor)));
}

inline int64_t ceilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace longcat::cuda
