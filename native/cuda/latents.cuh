// A packed latent cache's numbers on the device (ops/latent_cache.h), exactly.
#pragma once

#include "cuda/gemm_formats.cuh"
#include "ops/latent_cache.h"

namespace longcat::cuda {

__device__ __forceinline__ float latentScaleAt(const PackedRow<const uint8_t>& row, int64_t k) {
  return reinterpret_cast<const float*>(row.scales)[k / kFp8Block];
}

/// Number k of a row's latent, or of its rope key.
__device__ __forceinline__ float latentAt(const PackedRow<const uint8_t>& row, int64_t k) { return floatOf(Fp8{row.codes[k]}) * latentScaleAt(row, k); }
__device__ __forceinline__ float ropeKeyAt(const PackedRow<const uint8_t>& row, int64_t k) { return floatOf(reinterpret_cast<const Bf16*>(row.ropeKey)[k]); }

/// Two numbers by a scale; the scale is a power of two, and so a bfloat16.
__device__ __forceinline__ uint32_t scaledPair(uint32_t pair, float scale) {
  __nv_bfloat162 value;
  *reinterpret_cast<uint32_t*>(&value) = pair;
  value = __hmul2(value, __bfloat162bfloat162(__float2bfloat16_rn(scale)));
  return *reinterpret_cast<const uint32_t*>(&value);
}

/// Eight of them as bfloat16, from k, a multiple of eight, on. What lies behind a row's end is read, and is some number or other.
__device__ __forceinline__ uint4 latentOctet(const PackedRow<const uint8_t>& row, int64_t k) {
  const uint2 codes = *reinterpret_cast<const uint2*>(row.codes + k);
  const float scale = latentScaleAt(row, k);
  uint4 pairs;
  bf16OfFp8(codes.x, pairs.x, pairs.y), bf16OfFp8(codes.y, pairs.z, pairs.w);
  return {scaledPair(pairs.x, scale), scaledPair(pairs.y, scale), scaledPair(pairs.z, scale), scaledPair(pairs.w, scale)};
}
__device__ __forceinline__ uint4 ropeKeyOctet(const PackedRow<const uint8_t>& row, int64_t k) { return reinterpret_cast<const uint4*>(row.ropeKey)[k / 8]; }

}  // namespace longcat::cuda
