// The merge of a row's splits: latent = Σ exp(max_s − most) · latent_s / Σ exp(max_s − most) · sum_s, splits ascending. Every column is
// one chain along the splits, whichever lane, warp or kernel sums it.
#pragma once

#include "cuda/dependent.cuh"
#include "ops/mla_decode/live.cuh"

namespace longcat::cuda {
namespace {

/// The splits of one row and head: `count` partial results, `stride` floats apart.
struct RowSplits {
  const float* partial;
  int64_t stride, count;
};

/// A whole warp calls.
__device__ __forceinline__ RowSplits rowSplits(const MlaDecodeParams& p, const Live& live, int64_t row, int64_t head) {
  const int64_t first = firstSplit(p, live.splits, row), all = p.positions[row] / kSplitKeys + 1, left = live.splits - first;
  return {p.partial + (first * p.heads + head) * (p.kvRank + 2), p.heads * (p.kvRank + 2), all < left ? all : left};
}

/// Merged columns column, column + columnStep, … (C of them; 0 from kvRank on), one set for each lane; U splits are loaded at once.
/// A whole warp calls, with the same `splits`.
template <int C, int U>
__device__ __forceinline__ void mergeColumns(const RowSplits& splits, int64_t kvRank, int64_t column, int64_t columnStep, float (&out)[C]) {
  const int lane = threadIdx.x & 31;
  float most = -INFINITY;
  for (int64_t s = lane; s < splits.count; s += 32) {
    const float maximum = splits.partial[s * splits.stride + kvRank];
    most = maximum > most ? maximum : most;
  }
  most = warpMax(most);
  float total = 0;
#pragma unroll
  for (int c = 0; c < C; ++c) out[c] = 0;
  for (int64_t base = 0; base < splits.count; base += 32) {
    const float* chunk = splits.partial + base * splits.stride;
    const int n = splits.count - base < 32 ? static_cast<int>(splits.count - base) : 32;
    float factor = 0, sum = 0;
    if (lane < n) {
      factor = expf(chunk[lane * splits.stride + kvRank] - most);
      sum = factor * chunk[lane * splits.stride + kvRank + 1];
    }
    for (int j = 0; j < n; j += U) {
      float part[U][C];
#pragma unroll
      for (int u = 0; u < U; ++u) {
#pragma unroll
        for (int c = 0; c < C; ++c) {
          const int64_t k = column + c * columnStep;
          part[u][c] = j + u < n && k < kvRank ? chunk[(j + u) * splits.stride + k] : 0.0f;
        }
      }
#pragma unroll
      for (int u = 0; u < U; ++u) {
        if (j + u >= n) break;
        const float weight = __shfl_sync(kAllLanes, factor, j + u);
        total += __shfl_sync(kAllLanes, sum, j + u);
#pragma unroll
        for (int c = 0; c < C; ++c) out[c] = fmaf(weight, part[u][c], out[c]);
      }
    }
  }
#pragma unroll
  for (int c = 0; c < C; ++c) out[c] = column + c * columnStep < kvRank ? out[c] / total : 0.0f;
}

constexpr int kMergeThreads = 128;

/// Merged latents of all decode rows, rounded to T, to qLatent, whose queries nobody needs any more. A warp takes 32 columns.
template <class T>
__global__ void __launch_bounds__(kMergeThreads) mergeRows(const MlaDecodeParams p) {
  awaitPrevious();
  const Live live = liveOf(p);
  const int64_t slices = (p.kvRank + 31) / 32, items = (live.rows - live.begin) * p.heads * slices;
  const int64_t warps = static_cast<int64_t>(gridDim.x) * (kMergeThreads / 32);
  for (int64_t item = static_cast<int64_t>(blockIdx.x) * (kMergeThreads / 32) + threadIdx.x / 32; item < items; item += warps) {
    const int64_t pair = item / slices, row = live.begin + pair / p.heads, head = pair % p.heads;
    const int64_t column = (item - pair * slices) * 32 + (threadIdx.x & 31);
    float merged[1];
    mergeColumns<1, 16>(rowSplits(p, live, row, head), p.kvRank, column, 32, merged);
    if (column < p.kvRank) numbersIn<T>(p.qLatent)[(row * p.heads + head) * p.kvRank + column] = numberOf<T>(merged[0]);
  }
}

}  // namespace
}  // namespace longcat::cuda
