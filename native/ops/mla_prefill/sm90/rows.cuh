// Prompt attention on Hopper: what a warpgroup does with its 64 query rows and one tile of 128 keys. Scores, maximum, sum and output are
// float32; the weights exp(score − maximum) are rounded to bfloat16 for the product with the values, not for their sum.
//
// A thread has two rows (index [half]: row 16 · warp + lane / 4 + 8 · half) and of each a quarter of the columns, as wgmma.cuh says.
#pragma once

#include <math_constants.h>

#include "cuda/hopper/wgmma.cuh"
#include "ops/mla_prefill/sm90/block.cuh"

namespace longcat::cuda::prefill {

using Queries = uint32_t[(kNope + kRope) / 16][4];  // as wgmma takes A from registers
using Scores = float[kTileKeys / 2];
using Weights = uint32_t[kTileKeys / 16][4];         // likewise
struct RowSums {
  float output[kValue / 2];
  float maximum[2], total[2];
};

/// The same tile `bytes` further on, by one addition: descriptions are in uniform registers here, where furtherOn() in two halves takes more instructions.
__device__ __forceinline__ uint64_t movedOn(uint64_t tile, uint32_t bytes) { return tile + (bytes >> 4); }

/// The warpgroup's queries, to stay in registers: tensor cores that read them from shared memory would take half as much of its time again as the keys do.
__device__ __forceinline__ void loadQueries(const Panel64 (&from)[kDepthPanels], Queries& queries) {
  const int lane = threadIdx.x % 32, row = threadIdx.x / 32 % kGroupWarps * 16 + lane % 16;
#pragma unroll
  for (int step = 0; step < (kNope + kRope) / 16; ++step)
    loadMatrix4(queries[step], reinterpret_cast<const unsigned char*>(&from[step / 4]) + swizzled128(row, step % 4 * 2 + lane / 16));
}

/// Begins scores = queries · keysᵀ, unscaled.
__device__ __forceinline__ void beginScores(const Queries& queries, const Panel128 (&keys)[kDepthPanels], Scores& scores) {
  const uint64_t b = rowsOfK(keys);
  beginProducts();
#pragma unroll
  for (int step = 0; step < (kNope + kRope) / 16; ++step)
    productBf16<kTileKeys>(scores, queries[step], movedOn(b, step / 4 * sizeof(Panel128) + step % 4 * 32), step > 0);
  endProducts();
}

/// Begins output += weights · values, of the tile's first kKeys keys.
template <int kKeys>
__device__ __forceinline__ void beginSums(const Weights& weights, const Panel128 (&values)[kValuePanels], RowSums& rows) {
  const uint64_t b = rowsAcrossK(values, sizeof(Panel128));
  beginProducts();
#pragma unroll
  for (int step = 0; step < kKeys / 16; ++step) productBf16<kValue, true>(rows.output, weights[step], movedOn(b, step * 16 * 128));
  endProducts();
}

/// Keys beyond a row's own position, in the tile that the job's rows themselves are in.
__device__ __forceinline__ void maskScores(int group, Scores& scores) {
  const int row = group * kGroupRows + threadIdx.x / 32 % kGroupWarps * 16 + threadIdx.x / 4 % 8, key = threadIdx.x % 4 * 2;
#pragma unroll
  for (int i = 0; i < kTileKeys / 2; ++i)
    if (i / 4 * 8 + key + i % 2 > row + i / 2 % 2 * 8) scores[i] = -CUDART_INF_F;
}

/// Over the four threads that have a row.
__device__ __forceinline__ float rowMax(float v) {
  v = fmaxf(v, __shfl_xor_sync(kAllLanes, v, 1));
  return fmaxf(v, __shfl_xor_sync(kAllLanes, v, 2));
}
__device__ __forceinline__ float rowSum(float v) {
  v += __shfl_xor_sync(kAllLanes, v, 1);
  return v + __shfl_xor_sync(kAllLanes, v, 2);
}

/// Scores become weights 2^((score − maximum) · scale) and join the total; `factor` scales to the new maximum what was summed before.
__device__ __forceinline__ void weigh(float scale, Scores& scores, RowSums& rows, float (&factor)[2]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float most = rows.maximum[half];
#pragma unroll
    for (int i = half * 2; i < kTileKeys / 2; i += 4) most = fmaxf(most, fmaxf(scores[i], scores[i + 1]));
    most = rowMax(most);
    factor[half] = powerOfTwo((rows.maximum[half] - most) * scale);
    rows.maximum[half] = most;
    const float shift = -most * scale;
    float sums[2] = {0, 0};
#pragma unroll
    for (int i = half * 2; i < kTileKeys / 2; i += 4)
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        scores[i + e] = powerOfTwo(fmaf(scores[i + e], scale, shift));
        sums[e] += scores[i + e];
      }
    rows.total[half] = fmaf(rows.total[half], factor[half], rowSum(sums[0] + sums[1]));
  }
}

__device__ __forceinline__ void round(const Scores& scores, Weights& weights) {
#pragma unroll
  for (int i = 0; i < kTileKeys / 4; ++i) weights[i / 4][i % 4] = bf16Pair(scores[2 * i], scores[2 * i + 1]);
}

/// A product with 1 changes nothing: whether other rows of the warp need one does not matter.
__device__ __forceinline__ void rescale(const float (&factor)[2], RowSums& rows) {
  if (!__any_sync(kAllLanes, factor[0] != 1.0f || factor[1] != 1.0f)) return;
#pragma unroll
  for (int i = 0; i < kValue / 2; ++i) rows.output[i] *= factor[i / 2 % 2];
}

/// Position of this thread's row.
__device__ __forceinline__ int positionOf(const Job& job, int group, int half) {
  return job.tile.base + group * kGroupRows + threadIdx.x / 32 % kGroupWarps * 16 + half * 8 + threadIdx.x / 4 % 8;
}

/// What an earlier round left of the rows, or nothing yet.
__device__ __forceinline__ void beginRows(const MlaPrefillParams& p, const Job& job, int group, RowSums& rows) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int position = positionOf(job, group, half);
    const bool load = job.tile.fromKey > 0 && job.tile.has(position);
    const int64_t index = load ? job.tile.row(position) * p.heads + job.head : 0;
    rows.maximum[half] = load ? p.state[index * 2] : -CUDART_INF_F;
    rows.total[half] = load ? p.state[index * 2 + 1] : 0.0f;
    const float2* from = reinterpret_cast<const float2*>(p.accumulator + index * kValue) + threadIdx.x % 4;
#pragma unroll
    for (int i = 0; i < kValue / 8; ++i) {
      const float2 pair = load ? from[i * 4] : float2{0, 0};
      rows.output[i * 4 + half * 2] = pair.x;
      rows.output[i * 4 + half * 2 + 1] = pair.y;
    }
  }
}

/// Two neighbouring threads of a row exchange pairs of columns, so that each has four in a row: of the first eight columns or of the next.
__device__ __forceinline__ uint2 fourColumns(uint32_t first, uint32_t second) {
  const bool odd = threadIdx.x & 1;
  const uint32_t got = __shfl_xor_sync(kAllLanes, odd ? first : second, 1);
  return odd ? uint2{got, second} : uint2{first, got};
}

/// Writes `out` where the rows have met their last key; keeps them for the next round otherwise.
__device__ __forceinline__ void endRows(const MlaPrefillParams& p, const Job& job, int group, const RowSums& rows) {
  const bool finished = job.tile.toKey > job.tile.base;
  const int quarter = threadIdx.x % 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int position = positionOf(job, group, half);
    const bool has = job.tile.has(position);
    const int64_t index = has ? job.tile.row(position) * p.heads + job.head : 0;
    if (finished) {
      const float inverse = 1.0f / rows.total[half];
      Bf16* to = static_cast<Bf16*>(p.out.data) + index * kValue + quarter % 2 * 8 + quarter / 2 * 4;
#pragma unroll
      for (int i = 0; i < kValue / 16; ++i) {
        const float* output = rows.output + i * 8 + half * 2;
        const uint2 four = fourColumns(bf16Pair(output[0] * inverse, output[1] * inverse), bf16Pair(output[4] * inverse, output[5] * inverse));
        if (has) *reinterpret_cast<uint2*>(to + i * 16) = four;
      }
    } else if (has) {
      if (quarter == 0) *reinterpret_cast<float2*>(p.state + index * 2) = {rows.maximum[half], rows.total[half]};
      float2* to = reinterpret_cast<float2*>(p.accumulator + index * kValue) + quarter;
#pragma unroll
      for (int i = 0; i < kValue / 8; ++i) to[i * 4] = {rows.output[i * 4 + half * 2], rows.output[i * 4 + half * 2 + 1]};
    }
  }
}

}  // namespace longcat::cuda::prefill
