// Blocks of a cluster: they start together on neighbouring multiprocessors and reach each other's shared memory. PTX ISA 8.0, sm_90.
#pragma once

#include <cstdint>

#include "cuda/launch.cuh"

namespace longcat::cuda {

__device__ __forceinline__ uint32_t rankInCluster() {
  uint32_t rank;
  asm("mov.u32 %0, %%cluster_ctarank;\n" : "=r"(rank));
  return rank;
}
/// A barrier of all threads of all blocks: what was written to shared memory before it is seen after it, by all of them. No block may end while
/// another still copies or arrives there.
__device__ __forceinline__ void syncCluster() {
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;\n" ::: "memory");
}

/// kernel<<<blocks, threads, sharedBytes>>>(arguments…) in clusters of kCluster blocks; `blocks` is a multiple of it.
template <int kCluster, class... Params, class... Arguments>
void launchClusters(const CudaContext& context, void (*kernel)(Params...), int blocks, int threads, size_t sharedBytes, Arguments&&... arguments) {
  LONGCAT_CUDA(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(sharedBytes)));
  cudaLaunchAttribute cluster = {};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {kCluster, 1, 1};
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = sharedBytes;
  config.stream = context.stream;
  config.attrs = &cluster;
  config.numAttrs = 1;
  LONGCAT_CUDA(cudaLaunchKernelEx(&config, kernel, static_cast<Params>(arguments)...));
}

}  // namespace longcat::cuda
