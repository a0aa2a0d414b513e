// Thread block clusters: blocks that run at the same time and read each other's shared memory. PTX ISA 8.0, sm_90; LaunchShape (launch.cuh)
// is the host's side.
#pragma once

#include <cstdint>
#include <cstring>

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

/// The word that block `rank` of the cluster has where this block has `own`.
template <class T>
__device__ __forceinline__ T loadOfBlock(const T* own, uint32_t rank) {
  static_assert(sizeof(T) == 4);
  uint32_t there, bits;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;\n" : "=r"(there) : "r"(sharedAddress(own)), "r"(rank));
  asm volatile("ld.shared::cluster.u32 %0, [%1];\n" : "=r"(bits) : "r"(there) : "memory");
  T value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace longcat::cuda
