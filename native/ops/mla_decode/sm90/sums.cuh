// Attention of decode rows on Hopper: a unit's sums as a warpgroup has them in registers, and what becomes of them.
#pragma once

#include "ops/mla_decode/merge_units.cuh"

namespace longcat::cuda {
namespace {

/// A thread's part of them: of two rows (heads), a quarter of the half's columns. PIECES: in so many products side by side; the compiler takes none with more
/// sums than a thread of the launch has registers.
template <int PIECES>
struct UnitSums {
  static constexpr int kPieceSums = 128 / PIECES;
  int half;           // which 256 columns, and the parity of the warpgroup's tiles
  int lane, warp;     // warp of the warpgroup
  int row;            // the first of this thread's two rows (heads); the other one is eight further

  float latents[PIECES][kPieceSums];  // [row, +8][half's columns], as wgmma has them
  float maximum[2], total[2];

  __device__ UnitSums()
      : half(__shfl_sync(kAllLanes, static_cast<int>(threadIdx.x / 128) - 1, 0)), lane(static_cast<int>(threadIdx.x & 31)), warp(static_cast<int>(threadIdx.x / 32 & 3)),
        row(16 * warp + lane / 4) {}

  __device__ __forceinline__ float& latent(int i) { return latents[i / kPieceSums][i % kPieceSums]; }

  __device__ __forceinline__ void begin() {
#pragma unroll
    for (int i = 0; i < 128; ++i) latent(i) = 0;
#pragma unroll
    for (int i = 0; i < 2; ++i) maximum[i] = -INFINITY, total[i] = 0;
  }

  /// The sums so far, for weights relative to a new maximum.
  __device__ __forceinline__ void rescale(float low, float high) {
    total[0] *= low, total[1] *= high;
    if (__all_sync(kAllLanes, low == 1.0f && high == 1.0f)) return;
#pragma unroll
    for (int j = 0; j < 128; j += 4) latent(j) *= low, latent(j + 1) *= low, latent(j + 2) *= high, latent(j + 3) *= high;
  }

  /// f(r, sums as merge_units.cuh has their columns, first column of the 16 and those of this half before it) for all heads of this thread that there are.
  template <class F>
  __device__ __forceinline__ void forSums(const F& f) {
#pragma unroll
    for (int r = 0; r < 2; ++r)
#pragma unroll
      for (int i = 0; i < 16; ++i) f(r, latent(8 * i + 2 * r), latent(8 * i + 2 * r + 1), latent(8 * i + 4 + 2 * r), latent(8 * i + 5 + 2 * r), 256 * half + 16 * i);
  }

  /// Adds this unit to the row's before it, whose sums lie in memory and whose weights are `merge`'s; the result is in registers.
  __device__ __forceinline__ void addTo(const float* sums, RunningMerge (&merge)[2], int heads) {
#pragma unroll
    for (int r = 0; r < 2; ++r) merge[r].add(maximum[r], total[r]);
#pragma unroll
    for (int part = 0; part < 4; ++part) {
      float4 before[2][4];
#pragma unroll
      for (int r = 0; r < 2; ++r)
#pragma unroll
        for (int i = 0; i < 4; ++i)
          before[r][i] = row + 8 * r < heads ? __ldcg(reinterpret_cast<const float4*>(sums + (row + 8 * r) * kHopperRank + 256 * half + 16 * (4 * part + i) + 4 * (lane & 3))) : make_float4(0, 0, 0, 0);
#pragma unroll
      for (int r = 0; r < 2; ++r)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          float* mine = &latent(8 * (4 * part + i) + 2 * r);
          mine[0] = merge[r].apply(before[r][i].x, mine[0]), mine[1] = merge[r].apply(before[r][i].y, mine[1]);
          mine[4] = merge[r].apply(before[r][i].z, mine[4]), mine[5] = merge[r].apply(before[r][i].w, mine[5]);
        }
    }
  }

  __device__ __forceinline__ void storeSums(float* sums, int heads) {
    forSums([&](int r, float a, float b, float c, float d, int column) {
      if (row + 8 * r < heads) __stcg(reinterpret_cast<float4*>(sums + (row + 8 * r) * kHopperRank + column + 4 * (lane & 3)), make_float4(a, b, c, d));
    });
  }
  __device__ __forceinline__ void storeWeights(float2* to, int heads, float most, float sum, int r) const {
    if (half == 0 && (lane & 3) == 0 && row + 8 * r < heads) to[row + 8 * r] = make_float2(most, sum);
  }

  /// The row's latents, to their place.
  __device__ __forceinline__ void storeLatents(Bf16* to, const RunningMerge (&merge)[2], int heads) {
    const float inverse[2] = {merge[0].inverse(), merge[1].inverse()};
    forSums([&](int r, float a, float b, float c, float d, int column) {
      const uint2 columns = pairColumns(make_float4(a * inverse[r], b * inverse[r], c * inverse[r], d * inverse[r]));
      if (row + 8 * r < heads) *reinterpret_cast<uint2*>(to + (row + 8 * r) * kHopperRank + column + pairedColumn(lane & 3)) = columns;
    });
  }
};

}  // namespace
}  // namespace longcat::cuda
