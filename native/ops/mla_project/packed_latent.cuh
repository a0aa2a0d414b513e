// mla_project on a GPU: a normed latent into a packed cache's row (ops/latent_cache.h).
#pragma once

#include "cuda/fp8_codes.cuh"
#include "cuda/vectors.cuh"
#include "ops/latent_cache.h"

namespace longcat::cuda {

/// Takes a latent's octets from a block whose thread t has those at 8 t and at whole strides from there: 128 numbers, which have one scale, are then
/// a half warp's.
struct PackedLatent {
  PackedRow<uint8_t> row;
  static constexpr int kGroupThreads = static_cast<int>(kFp8Block) / kOctet;

  /// Numbers k … k + 7, of which the row has n; zeros behind them. All threads call that have any.
  __device__ __forceinline__ void operator()(int64_t k, int64_t n, const float (&v)[kOctet]) const {
    const int before = static_cast<int>(k % kFp8Block) / kOctet;
    const int64_t octets = before + (n + kOctet - 1) / kOctet;  // from the group's first to the row's last
    const int threads = octets < kGroupThreads ? static_cast<int>(octets) : kGroupThreads;
    float largest = 0;
#pragma unroll
    for (int i = 0; i < kOctet; ++i) largest = fmaxf(largest, fabsf(v[i]));
    // Numbers that are not negative are ordered as their bits are.
    const uint32_t group = ((1u << threads) - 1) << (threadIdx.x & 31 & ~(kGroupThreads - 1));
    const float scale = latentScale(__uint_as_float(__reduce_max_sync(group, __float_as_uint(largest)))), inverse = 1.0f / scale;
    uint32_t codes[2] = {0, 0};
#pragma unroll
    for (int i = 0; i < kOctet; ++i) codes[i / 4] |= fp8CodeOf(v[i] * inverse) << (i % 4 * 8);
    *reinterpret_cast<uint2*>(row.codes + k) = make_uint2(codes[0], codes[1]);  // behind the latent's end a row has room for whole octets
    if (before == 0) reinterpret_cast<float*>(row.scales)[k / kFp8Block] = scale;
  }
};

}  // namespace longcat::cuda
