// How stored weights and bf16 activations become tensor-core fragments, and the one order in which a product is summed.
//
// A result is the sum of L lanes of k, added in ascending order; L and the lanes' bounds depend on k and the weights' dtype alone.
//   bf16: a lane is one chain of m16n8k16 steps through its 32-wide pieces of k.
//   FP8:  a lane adds, 128 block by 128 block, scale · (a chain of m16n8k16 steps from zero through the block).
// Weights are always the m16 operand and activations the n8 one. Within a step of k, the four threads of a quad own contiguous
// numbers, so that every fragment is 16-byte loads: numbers 4j…4j+3 of each thread go to the j-th m16n8k16. A sum does not care
// which of its terms stands where, as long as both operands agree; all kernels use these functions, so that they do.
// On compute capability 9.0 the steps are wgmma's, in natural order of k (hopper/gemm_few.cuh); lanes and blocks are the same.
#pragma once

#include "cuda/mma.cuh"
#include "cuda/numbers.cuh"
#include "cuda/reduce.cuh"

namespace longcat::cuda {

/// Lanes of k; at most kMaxLanes.
constexpr int kMaxLanes = 8;
__host__ __device__ constexpr int lanesOf(int64_t k) { return k >= 4096 ? 8 : k >= 1024 ? 4 : k >= 256 ? 2 : 1; }
/// The first step of a lane (or, for lane = lanes, the end of the last).
__host__ __device__ constexpr int laneBegin(int steps, int lane, int lanes) { return static_cast<int>(static_cast<int64_t>(steps) * lane / lanes); }

/// Four e4m3 codes as bf16 pairs (codes 0 and 1, codes 2 and 3), exactly, as bf16PairOfFp8 has them.
__device__ __forceinline__ void bf16OfFp8(uint32_t codes, uint32_t& low, uint32_t& high) {
  const auto pair = [](uint32_t spread) { return bf16OfPlaced((spread & 0x80008000u) | ((spread >> 4) & 0x07f007f0u)); };  // codes in the upper bytes
  low = pair(__byte_perm(codes, 0, 0x1404));
  high = pair(__byte_perm(codes, 0, 0x3424));
}
/// The same of codes 0 and 2, codes 1 and 3, which takes fewer instructions than neighbours do.
__device__ __forceinline__ void bf16OfAlternate(uint32_t codes, uint32_t& even, uint32_t& odd) {
  even = bf16OfPlaced(((codes << 8) & 0x80008000u) | ((codes << 4) & 0x07f007f0u));
  odd = bf16OfPlaced((codes & 0x80008000u) | ((codes >> 4) & 0x07f007f0u));
}

/// v rounded to the nearest e4m3 (ties to even, beyond ±448 to ±448), as float; NaN stays.
__device__ __forceinline__ float roundToFp8(float v) {
  if (!(fabsf(v) < 448.0f)) return v > 0 ? 448.0f : v < 0 ? -448.0f : v;
  if (fabsf(v) < 0.015625f) {  // subnormal: multiples of 2^-9
    const float magic = 24576.0f;  // 1.5 · 2^14: its last bit is 2^-9
    return __fsub_rn(__fadd_rn(v, magic), magic);
  }
  const uint32_t bits = __float_as_uint(v);
  return __uint_as_float((bits + 0x7ffffu + ((bits >> 20) & 1u)) & 0xfff00000u);
}

__device__ __forceinline__ float lowBf16(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float highBf16(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }

__device__ __forceinline__ float largest(uint4 v) {
  const auto both = [](uint32_t pair) { return fmaxf(fabsf(lowBf16(pair)), fabsf(highBf16(pair))); };
  return fmaxf(fmaxf(both(v.x), both(v.y)), fmaxf(both(v.z), both(v.w)));
}
/// The codes' values of v / scale. They are exact in bf16: the halves are cut off.
__device__ __forceinline__ uint4 quantised(uint4 v, float scale) {
  const auto both = [scale](uint32_t pair) {
    const uint32_t low = __float_as_uint(roundToFp8(__fdiv_rn(lowBf16(pair), scale)));
    const uint32_t high = __float_as_uint(roundToFp8(__fdiv_rn(highBf16(pair), scale)));
    return (low >> 16) | (high & 0xffff0000u);
  };
  return {both(v.x), both(v.y), both(v.z), both(v.w)};
}

/// bf16 weights: a step is 32 numbers of k; each thread has 16 bytes of a weight row and of an activation row.
struct Bf16Format {
  static constexpr int kStep = 32, kWeightBytes = 2, kWeightPlanes = 1, kRowPlanes = 1;
  static constexpr bool kScaled = false;
  /// Byte of thread t's piece within a step.
  static __device__ __forceinline__ int weightOffset(int, int t) { return t * 16; }
  static __device__ __forceinline__ int rowOffset(int, int t) { return t * 16; }

  /// sum[i][n] += weights of tile i · rows of tile n over one step. weight(i, half, plane) and row(n, plane) give this thread's pieces:
  /// weight row lane/4 + 8·half of tile i, activation row lane/4 of tile n.
  template <int M, int N, class LoadWeight, class LoadRow>
  static __device__ __forceinline__ void step(float (&sum)[M][N][4], const float (&)[M], LoadWeight weight, LoadRow row) {
    uint4 x[N];
#pragma unroll
    for (int n = 0; n < N; ++n) x[n] = row(n, 0);
#pragma unroll
    for (int i = 0; i < M; ++i) {
      const uint4 upper = weight(i, 0, 0), lower = weight(i, 1, 0);
      const uint32_t first[4] = {upper.x, lower.x, upper.y, lower.y}, second[4] = {upper.z, lower.z, upper.w, lower.w};
#pragma unroll
      for (int n = 0; n < N; ++n) mma16816(sum[i][n], first, x[n].x, x[n].y);
#pragma unroll
      for (int n = 0; n < N; ++n) mma16816(sum[i][n], second, x[n].z, x[n].w);
    }
  }
};

/// FP8 weights: a step is one block of 128; each thread has twice 16 codes of a weight row and twice 16 numbers of an activation row.
/// kQuantised: each row's block is quantised as docs/numerics.md, 7 has it for weights, in blocks of 1 × 128.
template <bool kQuantised>
struct Fp8Format {
  static constexpr int kStep = 128, kWeightBytes = 1, kWeightPlanes = 2, kRowPlanes = 4;
  static constexpr bool kScaled = true;
  static __device__ __forceinline__ int weightOffset(int plane, int t) { return plane * 64 + t * 16; }
  static __device__ __forceinline__ int rowOffset(int plane, int t) { return (plane >> 1) * 128 + t * 32 + (plane & 1) * 16; }

  template <int M, int N, class LoadWeight, class LoadRow>
  static __device__ __forceinline__ void step(float (&sum)[M][N][4], const float (&scale)[M], LoadWeight weight, LoadRow row) {
    float own[N], factor[N][2];  // the scale of the row whose numbers this thread has; of the rows whose sums it has
    if constexpr (kQuantised) {
      const int lane = threadIdx.x & 31, t = lane & 3;
#pragma unroll
      for (int n = 0; n < N; ++n) {
        float most = 0;
#pragma unroll
        for (int plane = 0; plane < kRowPlanes; ++plane) most = fmaxf(most, largest(row(n, plane)));
        most = fmaxf(most, __shfl_xor_sync(kAllLanes, most, 1));
        most = fmaxf(most, __shfl_xor_sync(kAllLanes, most, 2));
        own[n] = __fdiv_rn(fmaxf(most, 1e-12f), 448.0f);
        factor[n][0] = __shfl_sync(kAllLanes, own[n], 8 * t);
        factor[n][1] = __shfl_sync(kAllLanes, own[n], 8 * t + 4);
      }
    }
    float part[M][N][4] = {};
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      uint4 x[N][2];
#pragma unroll
      for (int n = 0; n < N; ++n) {
#pragma unroll
        for (int q = 0; q < 2; ++q) {
          x[n][q] = row(n, 2 * half + q);
          if constexpr (kQuantised) x[n][q] = quantised(x[n][q], own[n]);
        }
      }
#pragma unroll
      for (int i = 0; i < M; ++i) {
        const uint4 upper = weight(i, 0, half), lower = weight(i, 1, half);
        const uint32_t up[4] = {upper.x, upper.y, upper.z, upper.w}, low[4] = {lower.x, lower.y, lower.z, lower.w};
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          uint32_t a[4];
          bf16OfFp8(up[j], a[0], a[2]);
          bf16OfFp8(low[j], a[1], a[3]);
#pragma unroll
          for (int n = 0; n < N; ++n) {
            const uint4& v = x[n][j >> 1];
            mma16816(part[i][n], a, j & 1 ? v.z : v.x, j & 1 ? v.w : v.y);
          }
        }
      }
    }
#pragma unroll
    for (int i = 0; i < M; ++i) {
#pragma unroll
      for (int n = 0; n < N; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const float by = kQuantised ? __fmul_rn(scale[i], factor[n][e & 1]) : scale[i];
          sum[i][n][e] = fmaf(by, part[i][n][e], sum[i][n][e]);
        }
      }
    }
  }
};

}  // namespace longcat::cuda
