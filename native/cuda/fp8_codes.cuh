// Numbers into e4m3 codes, on every card.
#pragma once

#include "cuda/gemm_formats.cuh"

namespace longcat::cuda {

/// The code of the e4m3 number nearest to v.
__device__ __forceinline__ uint32_t fp8CodeOf(float v) {
  const uint32_t bits = __float_as_uint(roundToFp8(v) * __uint_as_float(0x03800000u));  // 2^-120: the exponent is then an e4m3's, or a subnormal's
  return (bits >> 24 & 0x80u) | (bits >> 20 & 0x7fu);
}

/// Two numbers' codes, the first one's in the low byte.
__device__ __forceinline__ uint32_t fp8PairOf(float low, float high) {
#if __CUDA_ARCH__ >= 890
  uint16_t codes;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;\n" : "=h"(codes) : "f"(high), "f"(low));
  return codes;
#else
  return fp8CodeOf(low) | fp8CodeOf(high) << 8;
#endif
}

/// v / divisor, rounded as IEEE has it, by the divisor's reciprocal, itself rounded so: the remainder of a first quotient corrects it. The divisor is positive;
/// the correction would make +0 of -0.
struct ExactQuotient {
  float divisor, reciprocal;
  __device__ __forceinline__ explicit ExactQuotient(float by) {
    divisor = by;
    reciprocal = __frcp_rn(by);
  }
  __device__ __forceinline__ float operator()(float v) const {
    const float first = __fmul_rn(v, reciprocal);
    return copysignf(__fmaf_rn(__fmaf_rn(-first, divisor, v), reciprocal, first), v);
  }
};

}  // namespace longcat::cuda
