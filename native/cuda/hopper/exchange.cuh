// Numbers and signals from one block of a cluster to another: stores that report at a barrier of the block that gets them, and waiting for
// what other blocks say. PTX ISA 8.1, sm_90.
#pragma once

#include "cuda/hopper/barrier.cuh"
#include "cuda/hopper/cluster.cuh"

namespace longcat::cuda {

/// Two or four floats to another block (of a launch with clusters), at an address of addressIn(); its barrier, in the same block, counts their bytes when
/// they are there (arriveExpecting).
__device__ __forceinline__ void storeAt(uint32_t address, const float2& v, uint32_t barrier) {
  asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v2.f32 [%0], {%1, %2}, [%3];\n" ::"r"(address), "f"(v.x), "f"(v.y), "r"(barrier)
               : "memory");
}
__device__ __forceinline__ void storeAt(uint32_t address, const float4& v, uint32_t barrier) {
  asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, [%5];\n" ::"r"(address), "f"(v.x), "f"(v.y),
               "f"(v.z), "f"(v.w), "r"(barrier)
               : "memory");
}

/// As wait(), where threads of other blocks arrive: what they did before is over.
__device__ __forceinline__ void waitAcross(Barrier* barrier, uint32_t parity) {
  uint32_t over = 0;
  while (!over) {
    asm volatile(
        "{\n.reg .pred p;\nmbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}\n"
        : "=r"(over)
        : "r"(sharedAddress(barrier)), "r"(parity)
        : "memory");
  }
}

}  // namespace longcat::cuda
