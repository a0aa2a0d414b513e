// Barriers in shared memory (mbarrier) by which copies and warps tell each other that a stage is full or empty; and the fences
// that order ordinary accesses with those of the copy engine and of the tensor cores. PTX ISA 8.0, sm_90.
//
// A barrier counts arrivals (and bytes, where the copy engine fills a stage) until its phase is complete, and then begins the next one.
// Who waits names the parity of the phase that must be over: 0 for the first. A barrier that nothing has completed yet is "over" for
// parity 1, so that a producer who waits for empty stages begins with 1 and consumers who wait for full ones with 0.
#pragma once

#include <cstdint>

#include "cuda/hopper/cluster.cuh"

namespace longcat::cuda {

using Barrier = uint64_t;  // in shared memory, 8-byte aligned

/// One thread; then fenceBarriers(), and a barrier of the block (of the cluster, if others arrive here).
__device__ __forceinline__ void initBarrier(Barrier* barrier, uint32_t arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(sharedAddress(barrier)), "r"(arrivals) : "memory");
}
__device__ __forceinline__ void fenceBarriers() { asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory"); }

__device__ __forceinline__ void arrive(Barrier* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];\n" ::"r"(sharedAddress(barrier)) : "memory");
}
/// One arrival, and `bytes` more that the copy engine will bring before the phase is complete.
__device__ __forceinline__ void arriveExpecting(Barrier* barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(sharedAddress(barrier)), "r"(bytes) : "memory");
}
/// One arrival when all cp.async of this thread so far are done. It counts among the barrier's arrivals.
__device__ __forceinline__ void arriveAfterCopies(Barrier* barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];\n" ::"r"(sharedAddress(barrier)) : "memory");
}
/// One arrival at the same barrier of block `rank` of the cluster, by a thread that has only read what the barrier guards. A release of cluster
/// scope, which its writes would need, waits on this card for all the thread's memory accesses: more than a thousand cycles.
__device__ __forceinline__ void arriveAt(Barrier* barrier, uint32_t rank) {
  asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];\n" ::"r"(addressIn(barrier, rank)) : "memory");
}

__device__ __forceinline__ bool isOver(Barrier* barrier, uint32_t parity) {
  uint32_t over;
  asm volatile(
      "{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}\n"
      : "=r"(over)
      : "r"(sharedAddress(barrier)), "r"(parity)
      : "memory");
  return over != 0;
}
/// The same without lingering: isOver() may wait a while before it says no.
__device__ __forceinline__ bool isOverNow(Barrier* barrier, uint32_t parity) {
  uint32_t over;
  asm volatile(
      "{\n.reg .pred p;\nmbarrier.test_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}\n"
      : "=r"(over)
      : "r"(sharedAddress(barrier)), "r"(parity)
      : "memory");
  return over != 0;
}
/// Until the phase of that parity is over.
__device__ __forceinline__ void wait(Barrier* barrier, uint32_t parity) {
  while (!isOver(barrier, parity)) {
  }
}

/// This thread's writes to shared memory become visible to the copy engine and to wgmma; before the barrier that tells others.
__device__ __forceinline__ void fenceAsyncProxy() { asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory"); }

/// A barrier among `threads` threads of the block (whole warps), by number 1 to 15; 0 is __syncthreads.
__device__ __forceinline__ void syncSome(int number, int threads) { asm volatile("bar.sync %0, %1;\n" ::"r"(number), "r"(threads) : "memory"); }
/// The same, and whether all of them say yes.
__device__ __forceinline__ bool agreeSome(int number, int threads, bool yes) {
  uint32_t all;
  asm volatile("{\n.reg .pred p, q;\nsetp.ne.u32 p, %3, 0;\nbar.red.and.pred q, %1, %2, p;\nselp.u32 %0, 1, 0, q;\n}\n"
               : "=r"(all)
               : "r"(number), "r"(threads), "r"(static_cast<uint32_t>(yes))
               : "memory");
  return all != 0;
}
/// The same without waiting: these threads count, others wait.
__device__ __forceinline__ void arriveSome(int number, int threads) { asm volatile("bar.arrive %0, %1;\n" ::"r"(number), "r"(threads) : "memory"); }

/// Registers of each thread of the calling warpgroup from here on; the kernel has a cap by __launch_bounds__(threads, 1).
template <int kRegisters>
__device__ __forceinline__ void moreRegisters() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void fewerRegisters() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(kRegisters));
}

/// Which stage of a ring comes next, and in which phase.
template <int kStages>
struct RingPlace {
  int stage = 0;
  uint32_t phase = 0;
  __device__ __forceinline__ void next() {
    if (++stage == kStages) {
      stage = 0;
      phase ^= 1;
    }
  }
};

}  // namespace longcat::cuda
