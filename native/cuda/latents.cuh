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

/// Eight codes by their scale, which is a power of two and so a bfloat16.
__device__ __forceinline__ uint4 scaledOctet(uint2 codes, float scale) {
  const uint32_t bits = __byte_perm(__float_as_uint(scale), 0, 0x3232);
  const auto scaled = [bits](uint32_t pair) {
    const __nv_bfloat162 product = __hmul2(*reinterpret_cast<const __nv_bfloat162*>(&pair), *reinterpret_cast<const __nv_bfloat162*>(&bits));
    return *reinterpret_cast<const uint32_t*>(&product);
  };
  uint4 pairs;
  bf16OfFp8(codes.x, pairs.x, pairs.y), bf16OfFp8(codes.y, pairs.z, pairs.w);
  return {scaled(pairs.x), scaled(pairs.y), scaled(pairs.z), scaled(pairs.w)};
}

/// Eight of them as bfloat16, from k, a multiple of eight, on. What lies behind a row's end is read, and is some number or other.
__device__ __forceinline__ uint4 latentOctet(const PackedRow<const uint8_t>& row, int64_t k) {
  return scaledOctet(*reinterpret_cast<const uint2*>(row.codes + k), latentScaleAt(row, k));
}
__device__ __forceinline__ uint4 ropeKeyOctet(const PackedRow<const uint8_t>& row, int64_t k) { return reinterpret_cast<const uint4*>(row.ropeKey)[k / 8]; }

}  // namespace longcat::cuda
