// Numbers that say themselves whether they have come, so that nobody raises a flag behind them: none that travels is zero, the receiver looks at their
// places until there are no zeros, and puts zeros back once it has them. Nothing is between a number and its reader but one way over NVLink.
#pragma once

#include "cuda/exchange.cuh"

namespace longcat::cuda {

// ---- One access, in which each number is whole

__device__ __forceinline__ void storeArrival(uint4* to, uint4 v) {
  asm volatile("st.relaxed.sys.global.v4.u32 [%0], {%1, %2, %3, %4};\n" ::"l"(to), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
}
__device__ __forceinline__ void storeArrival(uint32_t* to, uint32_t v) { storeSystem(to, v); }
__device__ __forceinline__ void storeArrival(uint16_t* to, uint16_t v) { asm volatile("st.relaxed.sys.global.u16 [%0], %1;\n" ::"l"(to), "h"(v) : "memory"); }

__device__ __forceinline__ uint4 loadArrival(const uint4* from) {
  uint4 v;
  asm volatile("ld.relaxed.sys.global.v4.u32 {%0, %1, %2, %3}, [%4];\n" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(from) : "memory");
  return v;
}
__device__ __forceinline__ uint32_t loadArrival(const uint32_t* from) {
  uint32_t v;
  asm volatile("ld.relaxed.sys.global.u32 %0, [%1];\n" : "=r"(v) : "l"(from) : "memory");
  return v;
}
__device__ __forceinline__ uint16_t loadArrival(const uint16_t* from) {
  uint16_t v;
  asm volatile("ld.relaxed.sys.global.u16 %0, [%1];\n" : "=h"(v) : "l"(from) : "memory");
  return v;
}

// ---- Waiting

/// One thread's wait: now and then it looks whether control[0] says to give up, and after a second says in control[1] whom it waits for.
class Patience {
 public:
  explicit __device__ Patience(int32_t* control) : control_(control) {}
  __device__ ~Patience() {
    if (told_) tell(0);
  }

  /// After a look in vain at what `rank` is to send. False: give up.
  __device__ __forceinline__ bool waitFor(int64_t rank) {
    constexpr unsigned kLooksBetween = 1024;  // at host memory, which is beyond the bus
    constexpr uint32_t kLong = 1000;          // ms, a little longer ones
    if (++looks_ % kLooksBetween != 0) return true;
    if (loadHostWord(control_) != 0) return false;
    const auto now = static_cast<uint32_t>(nanoseconds() >> 20);
    if (looks_ == kLooksBetween) since_ = now;
    if (now - since_ > kLong) tell(static_cast<uint32_t>(rank + 1));
    return true;
  }

 private:
  __device__ void tell(uint32_t word) {
    storeSystem(reinterpret_cast<uint32_t*>(control_ + 1), word);
    told_ = word != 0;
  }

  int32_t* control_;
  uint32_t looks_ = 0, since_ = 0;
  bool told_ = false;
};

}  // namespace longcat::cuda
