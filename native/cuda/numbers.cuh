// Stored numbers on the device: float32, bfloat16 and e4m3 to float and back, in pairs too; 2^x.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "runtime/dtype.h"

namespace longcat::cuda {

using Bf16 = __nv_bfloat16;
/// An e4m3 code.
struct Fp8 {
  uint8_t code;
};

/// e4m3 as float, exactly (subnormals and NaN too). The code's bits sit in a bfloat16 whose exponent is off by 120.
__device__ __forceinline__ float floatOf(Fp8 v) {
  if ((v.code & 0x7f) == 0x7f) return __int_as_float(0x7fffffff);
  const uint32_t bits = (static_cast<uint32_t>(v.code & 0x80) << 24) | (static_cast<uint32_t>(v.code & 0x7f) << 20);
  return __uint_as_float(bits) * __uint_as_float(0x7b800000u);  // 2^120
}
__device__ __forceinline__ float floatOf(float v) { return v; }
__device__ __forceinline__ float floatOf(Bf16 v) { return __bfloat162float(v); }

/// Rounded to nearest, ties to even.
template <class T>
__device__ __forceinline__ T numberOf(float v);
template <>
__device__ __forceinline__ float numberOf<float>(float v) { return v; }
template <>
__device__ __forceinline__ Bf16 numberOf<Bf16>(float v) { return __float2bfloat16_rn(v); }

/// Two numbers rounded to bfloat16 in one word, the first one in its low half.
__device__ __forceinline__ uint32_t bf16Pair(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

/// Two e4m3 codes whose bits are already where two bfloat16 have theirs, exactly: the exponents are then 120 too small.
__device__ __forceinline__ uint32_t bf16OfPlaced(uint32_t bits) {
  __nv_bfloat162 value, factor;
  *reinterpret_cast<uint32_t*>(&value) = bits;
  *reinterpret_cast<uint32_t*>(&factor) = 0x7b807b80u;  // 2^120, twice
  value = __hmul2(value, factor);
  return *reinterpret_cast<uint32_t*>(&value);
}
/// Two e4m3 codes (low byte first) as two bfloat16, exactly; NaN codes become ±480.
__device__ __forceinline__ uint32_t bf16PairOfFp8(uint32_t pair) {
  const uint32_t spread = (pair & 0xffu) | ((pair & 0xff00u) << 8);
  return bf16OfPlaced(((spread & 0x00800080u) << 8) | ((spread & 0x007f007fu) << 4));
}

/// 2^x, by the instruction for it: 0 of −∞, a relative error of about 2^−22, subnormal results become 0.
__device__ __forceinline__ float powerOfTwo(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// Element i of numbers stored as `dtype`, as float (FP8 without its scale).
__device__ __forceinline__ float loadNumber(const void* data, DType dtype, int64_t i) {
  switch (dtype) {
    case DType::bf16: return floatOf(static_cast<const Bf16*>(data)[i]);
    case DType::f8e4m3: return floatOf(static_cast<const Fp8*>(data)[i]);
    default: return static_cast<const float*>(data)[i];
  }
}

/// A count of the device's, within [0, limit].
__device__ __forceinline__ int64_t clampCount(int32_t value, int64_t limit) { return value < 0 ? 0 : value < limit ? value : limit; }

}  // namespace longcat::cuda

// Host-side choice of a type by a dtype: LONGCAT_ACTIVATION(p.activation, X, body using X).
#define LONGCAT_ACTIVATION(dtype, X, ...)             \
  do {                                                \
    if ((dtype) == ::longcat::DType::bf16) {          \
      using X = ::longcat::cuda::Bf16;                \
      __VA_ARGS__                                     \
    } else {                                          \
      using X = float;                                \
      __VA_ARGS__                                     \
    }                                                 \
  } while (0)
