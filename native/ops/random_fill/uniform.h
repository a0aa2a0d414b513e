// The numbers of random_fill, for host and device: integer arithmetic, and float32 operations whose result IEEE 754 fixes.
#pragma once

#include <cstdint>

#include "ops/random_fill/params.h"

#ifdef __CUDACC__
#define LONGCAT_EVERYWHERE __host__ __device__ __forceinline__
#else
#define LONGCAT_EVERYWHERE [[maybe_unused]] static inline __attribute__((always_inline))
#endif

namespace longcat::fill {

constexpr uint64_t kGamma = 0x9e3779b97f4a7c15;  // splitmix64's step

/// splitmix64's output function.
LONGCAT_EVERYWHERE uint64_t mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

/// Where the numbers of a seed begin: seeds that follow each other have nothing in common.
LONGCAT_EVERYWHERE uint64_t streamOf(uint64_t seed) { return mix(seed + kGamma); }

/// v_i of params.h as float32: product and sum are rounded each.
LONGCAT_EVERYWHERE float valueAt(const RandomFillParams& p, int64_t i) {
  const uint64_t bits = mix(p.stream + (static_cast<uint64_t>(i) + 1) * kGamma);
  const float u = static_cast<float>(static_cast<int32_t>(bits >> 40)) * 0x1p-24f;
#ifdef __CUDA_ARCH__
  const float value = __fadd_rn(p.low, __fmul_rn(p.span, u));
#else
  const float value = p.low + p.span * u;  // built with -ffp-contract=off
#endif
  return value < p.highest ? value : p.highest;
}

/// Rounded to nearest, ties to even. Not for NaN.
LONGCAT_EVERYWHERE uint16_t bf16Of(float value) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, value);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

/// The e4m3 code nearest to `value`, ties to even. |value| ≤ 448.
LONGCAT_EVERYWHERE uint8_t e4m3Of(float value) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, value), sign = bits >> 24 & 0x80, size = bits & 0x7fffffff;
  if (size < 0x3c800000) {  // below 2^-6: codes count 2^-9, which is the last place of numbers from 2^14 on
    const float counted = __builtin_bit_cast(float, size) + 0x1p14f;
    return static_cast<uint8_t>(sign | (__builtin_bit_cast(uint32_t, counted) & 0xff));
  }
  const uint32_t rounded = (size + 0x7ffff + ((size >> 20) & 1)) >> 20;  // exponent and 3 bits of mantissa
  return static_cast<uint8_t>(sign | (rounded - ((127 - 7) << 3)));
}

}  // namespace longcat::fill
