// Launching kernels: grid sizes, shared memory beyond 48 KB, errors checked. Launches allocate nothing and wait for nothing.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <mutex>
#include <tuple>
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

/// kernel(arguments…) on the context's stream. On capability 9.0 the kernel may begin while the one before it ends (dependent.cuh); PTX for
/// newer cards has no such waiting in it, so there a launch is an ordinary one.
template <class... Params, class... Arguments>
void launch(const CudaContext& context, void (*kernel)(Params...), const LaunchShape& shape, Arguments&&... arguments) {
  if (shape.grid.x == 0 || shape.grid.y == 0 || shape.grid.z == 0) return;
  if (shape.sharedBytes > (48u << 10))
    LONGCAT_CUDA(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shape.sharedBytes)));
  cudaLaunchAttribute attributes[2] = {};
  unsigned count = 0;
  if (context.capability == 90) {
    attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[count++].val.programmaticStreamSerializationAllowed = 1;
  }
  if (shape.cluster > 1) {
    attributes[count].id = cudaLaunchAttributeClusterDimension;
    attributes[count++].val.clusterDim = {shape.cluster, 1, 1};
  }
  cudaLaunchConfig_t config{};
  config.gridDim = shape.grid;
  config.blockDim = dim3(static_cast<unsigned>(shape.threads));
  config.dynamicSmemBytes = shape.sharedBytes;
  config.stream = context.stream;
  config.attrs = attributes;
  config.numAttrs = count;
  LONGCAT_CUDA(cudaLaunchKernelEx(&config, kernel, static_cast<Params>(arguments)...));
}

/// kernel<<<grid, threads, sharedBytes>>>(arguments…), without clusters.
template <class... Params, class... Arguments>
void launch(const CudaContext& context, void (*kernel)(Params...), dim3 grid, int threads, size_t sharedBytes, Arguments&&... arguments) {
  launch(context, kernel, LaunchShape{grid, threads, sharedBytes}, std::forward<Arguments>(arguments)...);
}

/// How many clusters of `cluster` blocks, each with all the shared memory that a block can have, the card runs at the same time. It is asked once.
template <class... Params>
int clustersAtOnce(const CudaContext& context, void (*kernel)(Params...), int threads, int cluster) {
  static std::mutex mutex;
  static std::map<std::tuple<int, const void*, int>, int> known;  // by card, kernel and cluster
  int device = 0;
  LONGCAT_CUDA(cudaGetDevice(&device));
  const auto* function = reinterpret_cast<const void*>(kernel);
  const std::tuple key{device, function, cluster};
  const std::lock_guard<std::mutex> lock(mutex);
  if (const auto found = known.find(key); found != known.end()) return found->second;
  LONGCAT_CUDA(cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, context.sharedBytes));
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim = {static_cast<unsigned>(cluster), 1, 1};
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(std::max(1, context.multiprocessors / cluster) * cluster));
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = static_cast<size_t>(context.sharedBytes);
  config.attrs = &attribute;
  config.numAttrs = 1;
  int clusters = 0;
  LONGCAT_CUDA(cudaOccupancyMaxActiveClusters(&clusters, kernel, &config));
  known.emplace(key, clusters);
  return clusters;
}

/// Blocks for a persistent kernel: `perMultiprocessor` on each, but no more than there is work.
inline int persistentGrid(const CudaContext& context, int64_t work, int perMultiprocessor = 1) {
  return static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(work, static_cast<int64_t>(context.multiprocessors) * perMultiprocessor)));
}

inline int64_t ceilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace longcat::cuda
