// The router's products on tensor cores, as exact as float32: a float32 weight is the sum of three bfloat16 numbers (8 + 8 + 8 bits of its
// significand), activations are bfloat16 already, so that every product of a part is exact and only the sums round.
//
// The one order of a logit's sum: hidden is cut into kSlices · kLanes runs of whole steps of 32 numbers. A run is one chain of products of
// depth 16 from zero: sixteen numbers of hidden after the other, of each sixteen one part after the other, the greatest first. The kLanes
// runs of a slice are added in ascending order, then the slices. (Tensor cores give the same bits whichever instruction makes a product of
// depth 16 and whichever operand is the rows, seen on an H100.)
#pragma once

#include "cuda/gemm_formats.cuh"
#include "cuda/vectors.cuh"

namespace longcat::cuda {

constexpr int kSlices = 8, kLanes = 8;
constexpr int kStep = 32;  // numbers of hidden

/// A thread's numbers of a step: 4t … 4t + 3 of each sixteen (t: its place in the quad), the first two in one register of an operand of
/// m16n8k16, the others in the next. A sum does not care which of its terms stands where, as long as both operands agree.
template <class W>
struct Parts;

template <>
struct Parts<Bf16> {
  static constexpr int kCount = 1;
  using Stored = uint2;
  uint32_t pair[kCount][2];
  __device__ __forceinline__ explicit Parts(const Stored& four) : pair{{four.x, four.y}} {}
};

template <>
struct Parts<float> {
  static constexpr int kCount = 3;
  using Stored = uint4;
  uint32_t pair[kCount][2];

  __device__ __forceinline__ explicit Parts(const Stored& four) {
    uint32_t rest[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
    for (int part = 0; part < kCount; ++part) {
      pair[part][0] = __byte_perm(rest[0], rest[1], 0x7632);  // the upper halves: bfloat16, cut off
      pair[part][1] = __byte_perm(rest[2], rest[3], 0x7632);
#pragma unroll
      for (uint32_t& r : rest) r = __float_as_uint(__uint_as_float(r) - __uint_as_float(r & 0xffff0000u));  // exact
    }
  }
};

/// sum[m][n] += activations of tile m · weights of tile n over sixteen numbers of hidden. weight[n]: the thread's four of output lane/4 of
/// tile n; x[m][half]: those of row lane/4 + 8 · half of tile m.
template <class W, int M, int N>
__device__ __forceinline__ void multiply(float (&sum)[M][N][4], const uint2 (&x)[M][2], const typename Parts<W>::Stored (&weight)[N]) {
  uint32_t a[M][4];
#pragma unroll
  for (int m = 0; m < M; ++m) a[m][0] = x[m][0].x, a[m][1] = x[m][1].x, a[m][2] = x[m][0].y, a[m][3] = x[m][1].y;
  uint32_t b[Parts<W>::kCount][N][2];
#pragma unroll
  for (int n = 0; n < N; ++n) {
    const Parts<W> parts(weight[n]);
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

}  // namespace longcat::cuda
