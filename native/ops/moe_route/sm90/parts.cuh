// The router's products on tensor cores, as exact as float32: a float32 weight is the sum of three bfloat16 numbers (8 + 8 + 8 bits of its
// significand), activations are bfloat16 already, so that every product of a part is exact and only the sums round.
//
// The one order of a logit's sum: hidden is cut into kSlices · kLanes runs of whole steps of 32 numbers. A run is one chain of m16n8k16
// from zero: step by step, half by half, part by part, the greatest part first. The kLanes runs of a slice are added in ascending order, then the slices.
#pragma once

#include "cuda/gemm_formats.cuh"
#include "cuda/vectors.cuh"

namespace longcat::cuda {

constexpr int kSlices = 8, kLanes = 8;
constexpr int kStep = 32;  // numbers of hidden

/// Numbers 4j … 4j + 3 of a thread's eight go to the j-th m16n8k16 of a step, as in gemm_formats.cuh: a pair is one register of the operand.
template <class W>
struct Parts;

template <>
struct Parts<Bf16> {
  static constexpr int kCount = 1;
  uint32_t pair[kCount][2];
  /// Of half j of eight weights.
  __device__ __forceinline__ Parts(const uint4 (&stored)[1], int j) : pair{{j ? stored[0].z : stored[0].x, j ? stored[0].w : stored[0].y}} {}
};

template <>
struct Parts<float> {
  static constexpr int kCount = 3;
  uint32_t pair[kCount][2];

  __device__ __forceinline__ Parts(const uint4 (&stored)[2], int j) {
    uint32_t rest[4] = {stored[j].x, stored[j].y, stored[j].z, stored[j].w};
#pragma unroll
    for (int part = 0; part < kCount; ++part) {
      pair[part][0] = __byte_perm(rest[0], rest[1], 0x7632);  // the upper halves: bfloat16, cut off
      pair[part][1] = __byte_perm(rest[2], rest[3], 0x7632);
#pragma unroll
      for (uint32_t& r : rest) r = __float_as_uint(__uint_as_float(r) - __uint_as_float(r & 0xffff0000u));  // exact
    }
  }
};

/// sum[m][n] += activations of tile m · weights of tile n over one step. weight[n]: the thread's eight numbers of output lane/4 of tile n;
/// x[m][half]: those of row lane/4 + 8 · half of tile m.
template <class W, int M, int N>
__device__ __forceinline__ void multiplyStep(float (&sum)[M][N][4], const uint4 (&x)[M][2], const uint4 (&weight)[N][sizeof(W) / 2]) {
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    uint32_t a[M][4];
#pragma unroll
    for (int m = 0; m < M; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        a[m][half] = j ? x[m][half].z : x[m][half].x;
        a[m][2 + half] = j ? x[m][half].w : x[m][half].y;
      }
    }
    uint32_t b[Parts<W>::kCount][N][2];
#pragma unroll
    for (int n = 0; n < N; ++n) {
      const Parts<W> parts(weight[n], j);
#pragma unroll
      for (int part = 0; part < Parts<W>::kCount; ++part) b[part][n][0] = parts.pair[part][0], b[part][n][1] = parts.pair[part][1];
    }
#pragma unroll
    for (int part = 0; part < Parts<W>::kCount; ++part) {
#pragma unroll
      for (int n = 0; n < N; ++n) {
#pragma unroll
        for (int m = 0; m < M; ++m) mma16816(sum[m][n], a[m], b[part][n][0], b[part][n][1]);
      }
    }
  }
}

}  // namespace longcat::cuda
