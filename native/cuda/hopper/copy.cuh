// Copies by Hopper's copy engine: one thread asks, the bytes arrive at a barrier. They take boxes out of a matrix that a map describes
// (tensor_map.h) and swizzle them as wgmma reads them.
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

// A map may be changed on the device: in shared memory, whence it is copied to global memory for use.

/// The map in shared memory (at a multiple of 128 bytes) describes the matrix that begins at `data` instead. One thread; then a barrier of the warp.
__device__ __forceinline__ void pointMap(void* sharedMap, const void* data) {
  asm volatile("tensormap.replace.tile.global_address.shared::cta.b1024.b64 [%0], %1;\n" ::"r"(sharedAddress(sharedMap)), "l"(data) : "memory");
}
/// Copies a map from shared to global memory, at multiples of 128 bytes, and makes it known to this thread's copies from there on. Whole warps; no copy by the map that was
/// there may be under way.
__device__ __forceinline__ void publishMap(void* map, const void* sharedMap) {
  asm volatile("tensormap.cp_fenceproxy.global.shared::cta.tensormap::generic.release.gpu.sync.aligned [%0], [%1], 128;\n" ::"l"(
                   __cvta_generic_to_global(map)),
               "r"(sharedAddress(sharedMap))
               : "memory");
  asm volatile("fence.proxy.tensormap::generic.acquire.gpu [%0], 128;\n" ::"l"(map) : "memory");
}

/// A box from column x and row y on to shared memory; its whole size is counted at the barrier, also where it sticks out of the matrix
/// (zeros are written there).
__device__ __forceinline__ void copyBox(void* shared, const void* map, Barrier* barrier, int x, int y, uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, {%3, %4}], [%2], %5;\n" ::"r"(
          sharedAddress(shared)),
      "l"(map), "r"(sharedAddress(barrier)), "r"(x), "r"(y), "l"(policy)
      : "memory");
}
/// The same out of pages of rows (pagesMap): from byte x of row y of a page on.
__device__ __forceinline__ void copyPageBox(void* shared, const void* map, Barrier* barrier, int x, int y, int page, uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, {%3, %4, %5}], [%2], %6;\n" ::"r"(
          sharedAddress(shared)),
      "l"(map), "r"(sharedAddress(barrier)), "r"(x), "r"(y), "r"(page), "l"(policy)
      : "memory");
}
/// `bytes` as they lie in memory; all three are multiples of 16.
__device__ __forceinline__ void copyBytes(void* shared, const void* from, uint32_t bytes, Barrier* barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];\n" ::"r"(sharedAddress(shared)),
               "l"(__cvta_generic_to_global(from)), "r"(bytes), "r"(sharedAddress(barrier))
               : "memory");
}

/// Asks for `bytes` to be brought to the L2 cache; both are multiples of 16.
__device__ __forceinline__ void prefetchBytes(const void* from, uint32_t bytes) {
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;\n" ::"l"(__cvta_generic_to_global(from)), "r"(bytes) : "memory");
}
/// The same box to the same place, and to the same barrier, of every block of the cluster whose bit is set.
__device__ __forceinline__ void copyBoxToAll(void* shared, const void* map, Barrier* barrier, int x, int y, uint16_t blocks, uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster.L2::cache_hint [%0], [%1, {%3, %4}], [%2], "
      "%5, %6;\n" ::"r"(sharedAddress(shared)),
      "l"(map), "r"(sharedAddress(barrier)), "r"(x), "r"(y), "h"(blocks), "l"(policy)
      : "memory");
}

/// Where the 16-byte piece `piece` of row `row` lies in a tile of 128-byte rows with the 128-byte swizzle, in bytes; the tile begins at a
/// multiple of 1024. Tensor copies with that swizzle write so, wgmma reads so.
__host__ __device__ constexpr int swizzled128(int row, int piece) { return row * 128 + ((piece ^ (row & 7)) << 4); }

}  // namespace longcat::cuda
