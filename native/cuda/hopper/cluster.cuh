// Thread block clusters: blocks that run at the same time and read each other's shared memory. PTX ISA 8.0, sm_90; LaunchShape (launch.cuh)
// is the host's side.
#pragma once

#include <cstdint>

#include "cuda/mma.cuh"

namespace longcat::cuda {

/// This block's number within its cluster, and how many there are (1 where the launch has no clusters).
__device__ __forceinline__ uint32_t clusterRank() {
  uint32_t rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;\n" : "=r"(rank));
  return rank;
}
__device__ __forceinline__ uint32_t clusterSize() {
  uint32_t size;
  asm volatile("mov.u32 %0, %%cluster_nctarank;\n" : "=r"(size));
  return size;
}

/// A barrier of all threads of the cluster in two halves. What was written before arriving is seen by all after waiting. A block whose shared
/// memory others read may not end before they have arrived again. Whole warps call.
__device__ __forceinline__ void arriveAtCluster() {
  __syncwarp();
  asm volatile("barrier.cluster.arrive.release.aligned;\n" ::: "memory");
}
__device__ __forceinline__ void waitForCluster() {
  __syncwarp();
  asm volatile("barrier.cluster.wait.acquire.aligned;\n" ::: "memory");
}
__device__ __forceinline__ void syncCluster() {
  arriveAtCluster();
  waitForCluster();
}

/// Where block `rank` of the cluster has what this block has at `own`.
__device__ __forceinline__ uint32_t addressIn(const void* own, uint32_t rank) {
  uint32_t there;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;\n" : "=r"(there) : "r"(sharedAddress(own)), "r"(rank));
  return there;
}

/// The 16 bytes that block `rank` of the cluster has where this block has `own`.
__device__ __forceinline__ uint4 loadOfBlock(const uint4* own, uint32_t rank) {
  uint4 value;
  asm volatile("ld.shared::cluster.v4.u32 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "r"(addressIn(own, rank))
               : "memory");
  return value;
}

}  // namespace longcat::cuda
