// Launches with what Hopper adds: clusters of blocks, and a beginning before the launch before has ended (cluster.cuh is the kernels' side).
#pragma once

#include "cuda/launch.cuh"

namespace longcat::cuda {

struct LaunchShape {
  dim3 grid;
  int threads;
  size_t sharedBytes = 0;
  unsigned cluster = 1;  // blocks along x of a cluster, a divisor of grid.x; at most 8
  bool early = false;    // begins when the launch before allows it; the kernel waits by waitForLaunchBefore()
};

/// kernel(arguments…) on the context's stream.
template <class... Params, class... Arguments>
void launch(const CudaContext& context, void (*kernel)(Params...), const LaunchShape& shape, Arguments&&... arguments) {
  if (shape.grid.x == 0 || shape.grid.y == 0 || shape.grid.z == 0) return;
  if (shape.sharedBytes > (48u << 10))
    LONGCAT_CUDA(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shape.sharedBytes)));
  cudaLaunchAttribute attributes[2];
  unsigned count = 0;
  if (shape.cluster > 1) {
    attributes[count].id = cudaLaunchAttributeClusterDimension;
    attributes[count++].val.clusterDim = {shape.cluster, 1, 1};
  }
  if (shape.early) {
    attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[count++].val.programmaticStreamSerializationAllowed = 1;
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = shape.grid;
  config.blockDim = dim3(static_cast<unsigned>(shape.threads));
  config.dynamicSmemBytes = shape.sharedBytes;
  config.stream = context.stream;
  config.attrs = attributes;
  config.numAttrs = count;
  LONGCAT_CUDA(cudaLaunchKernelEx(&config, kernel, static_cast<Params>(arguments)...));
}

}  // namespace longcat::cuda
