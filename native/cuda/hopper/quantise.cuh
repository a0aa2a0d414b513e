// Rows rounded to e4m3 in blocks of 128 numbers (docs/numerics.md, 7, in blocks of 1 × 128): the one way that all products on Hopper do it.
#pragma once

#include "cuda/gemm_formats.cuh"

namespace longcat::cuda {

/// Two numbers' codes.
__device__ __forceinline__ uint32_t e4m3Pair(uint32_t pair, float scale) {
  uint16_t codes;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;\n" : "=h"(codes) : "f"(__fdiv_rn(highBf16(pair), scale)), "f"(__fdiv_rn(lowBf16(pair), scale)));
  return codes;
}

/// The codes of sixteen numbers, and their block's scale. Eight threads that follow each other have a block; all threads of a warp call.
__device__ __forceinline__ uint4 e4m3Sixteen(const uint4 (&v)[2], float& scale) {
  float most = fmaxf(largest(v[0]), largest(v[1]));
#pragma unroll
  for (int d = 1; d < 8; d <<= 1) most = fmaxf(most, __shfl_xor_sync(kAllLanes, most, d));
  scale = __fdiv_rn(fmaxf(most, 1e-12f), 448.0f);
  const auto four = [&](uint32_t low, uint32_t high) { return e4m3Pair(low, scale) | e4m3Pair(high, scale) << 16; };
  return {four(v[0].x, v[0].y), four(v[0].z, v[0].w), four(v[1].x, v[1].y), four(v[1].z, v[1].w)};
}

}  // namespace longcat::cuda
