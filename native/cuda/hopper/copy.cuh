// Copies by Hopper's copy engine: one thread asks, the bytes arrive at a barrier. Tensor copies take boxes out of a tensor that a map
// describes (tensor_map.h) and swizzle them as wgmma reads them; bulk copies move contiguous bytes.
#pragma once

#include "cuda/hopper/barrier.cuh"
#include "cuda/hopper/tensor_map.h"

namespace longcat::cuda {

/// How long the L2 cache should keep what a copy reads.
__device__ __forceinline__ uint64_t readOncePolicy() {
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;\n" : "=l"(policy));
  return policy;
}
__device__ __forceinline__ uint64_t readAgainPolicy() {
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;\n" : "=l"(policy));
  return policy;
}
__device__ __forceinline__ uint64_t usualPolicy() {
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_normal.b64 %0, 1.0;\n" : "=l"(policy));
  return policy;
}

/// The map must be in constant, parameter or global memory, at a multiple of 64 bytes.
__device__ __forceinline__ void prefetchMap(const void* map) { asm volatile("prefetch.tensormap [%0];\n" ::"l"(map) : "memory"); }

/// A box from coordinates (x innermost) on to shared memory; its whole size is counted at the barrier, also where it sticks out of the
/// tensor (zeros are written there).
__device__ __forceinline__ void copyBox(void* shared, const void* map, Barrier* barrier, int x, int y, uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, {%3, %4}], [%2], %5;\n" ::"r"(
          sharedAddress(shared)),
      "l"(map), "r"(sharedAddress(barrier)), "r"(x), "r"(y), "l"(policy)
      : "memory");
}
__device__ __forceinline__ void copyBox(void* shared, const void* map, Barrier* barrier, int x, int y, int z, uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, {%3, %4, %5}], [%2], %6;\n" ::"r"(
          sharedAddress(shared)),
      "l"(map), "r"(sharedAddress(barrier)), "r"(x), "r"(y), "r"(z), "l"(policy)
      : "memory");
}
/// A box of the matrix that begins at `matrix`, by an anywhereMap().
__device__ __forceinline__ void copyBoxAnywhere(void* shared, const void* map, Barrier* barrier, const void* matrix, int x, int y, uint64_t policy) {
  const uint64_t place = (reinterpret_cast<uint64_t>(matrix) - kAnywhereBase) >> 4;
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, {%3, %4, %5, %6}], [%2], %7;\n" ::"r"(
          sharedAddress(shared)),
      "l"(map), "r"(sharedAddress(barrier)), "r"(x), "r"(y), "r"(static_cast<int>(place & 0x7fffffff)), "r"(static_cast<int>(place >> 31)), "l"(policy)
      : "memory");
}
/// The same box to the same place, and to the same barrier, of every block of the cluster whose bit is set.
__device__ __forceinline__ void copyBoxToAll(void* shared, const void* map, Barrier* barrier, int x, int y, uint16_t blocks, uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster.L2::cache_hint [%0], [%1, {%3, %4}], [%2], "
      "%5, %6;\n" ::"r"(sharedAddress(shared)),
      "l"(map), "r"(sharedAddress(barrier)), "r"(x), "r"(y), "h"(blocks), "l"(policy)
      : "memory");
}
/// `bytes` contiguous ones, a multiple of 16, both addresses too.
__device__ __forceinline__ void copyBulk(void* shared, const void* global, uint32_t bytes, Barrier* barrier, uint64_t policy) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;\n" ::"r"(
                   sharedAddress(shared)),
               "l"(global), "r"(bytes), "r"(sharedAddress(barrier)), "l"(policy)
               : "memory");
}

/// A box from shared memory (after fenceAsyncProxy() and a barrier) to the tensor; what sticks out is dropped.
__device__ __forceinline__ void storeBox(const void* map, const void* shared, int x, int y) {
  asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%2, %3}], [%1];\n" ::"l"(map), "r"(sharedAddress(shared)), "r"(x), "r"(y)
               : "memory");
}
__device__ __forceinline__ void commitStores() { asm volatile("cp.async.bulk.commit_group;\n" ::: "memory"); }
/// Until at most N groups of this thread's stores still read shared memory.
template <int N>
__device__ __forceinline__ void waitStoresRead() {
  asm volatile("cp.async.bulk.wait_group.read %0;\n" ::"n"(N) : "memory");
}

/// Where the 16-byte piece `piece` of row `row` lies in a tile of 128-byte rows with the 128-byte swizzle, in bytes; the tile begins at a
/// multiple of 1024. Tensor copies with that swizzle write so, wgmma reads so.
__host__ __device__ constexpr int swizzled128(int row, int piece) { return row * 128 + ((piece ^ (row & 7)) << 4); }

}  // namespace longcat::cuda
