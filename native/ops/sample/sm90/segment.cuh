// sample by clusters: a block's part of a row. Its logits are read once and then lie in shared memory; ids whose logits are adjusted are few,
// and are gone through by the slot's list.
#pragma once

#include "cuda/hopper/cluster.cuh"
#include "ops/sample/keys.cuh"

namespace longcat::cuda {

/// Quads [first, end) of a row are those of one warp: 32 · depth, in steps of a quad a lane, so that ids ascend by block, warp, step and lane.
struct WarpQuads {
  int first, end;
  __device__ WarpQuads(int warpOfCluster, int depth, int64_t vocabulary)
      : first(warpOfCluster * 32 * depth), end(min(first + 32 * depth, numQuads(vocabulary))) {}
};

/// Lies in shared memory.
struct Segment {
  const Row* row;
  float4* cache;                // [depth][kThreads] logits; ids that may not be drawn, or are adjusted, are no numbers there
  int depth;                    // quads of a thread
  int firstAdjustment[kWarps];  // in the row's list: the first of the warp's ids, or behind them

  /// Reads the block's logits of a row. While they are under way, `meanwhile` sets row, cache and depth for all threads, and waits for that.
  template <class F>
  __device__ __forceinline__ void load(const SampleParams& p, int64_t r, int quadsOfThread, const F& meanwhile) {
    constexpr int kTogether = 4;  // loads under way
    const int vocabulary = static_cast<int>(p.vocabulary);
    const float* logitsOfRow = p.logits + r * p.vocabulary;
    const bool aligned = isAligned(logitsOfRow);
    const WarpQuads quads(warpOfCluster(), quadsOfThread, vocabulary);
    for (int first = 0; first < quadsOfThread; first += kTogether) {
      float logits[kTogether][4];
      uint32_t bits[kTogether];
#pragma unroll
      for (int i = 0; i < kTogether; ++i) {
        const int quad = quads.first + 32 * (first + i) + lane();
        bits[i] = 0;
        if (first + i < quadsOfThread && quad < quads.end) {
          bits[i] = loadBits(p.allowed, vocabulary, quad);
          loadLogits(logitsOfRow, vocabulary, aligned, quad, logits[i]);
        }
      }
      if (first == 0) meanwhile();
#pragma unroll
      for (int i = 0; i < kTogether; ++i) {
        if (first + i >= quadsOfThread) break;
        if (row->mask && bits[i]) bits[i] &= loadBits(row->mask, vocabulary, quads.first + 32 * (first + i) + lane());
        float v[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const float number = isnan(logits[i][j]) ? -INFINITY : logits[i][j] + 0.0f;  // −0 + 0 is 0
          v[j] = bits[i] >> j & 1 ? number : __uint_as_float(kAbsent);
        }
        cache[(first + i) * kThreads + threadIdx.x] = make_float4(v[0], v[1], v[2], v[3]);
      }
    }
    if (row->numAdjustments) markAdjusted();
  }

  /// visit(logits, id) for this thread's quads, ascending: ids id … id + 3; no numbers are those that may not be drawn or are adjusted. NaN is −∞
  /// here, and both zeros are one.
  template <class F>
  __device__ __forceinline__ void forQuads(const F& visit) const {
    int id = 4 * (warpOfCluster() * 32 * depth + lane());
    const float4* end = cache + depth * kThreads;
#pragma unroll 1
    for (const float4* quad = cache + threadIdx.x; quad < end; quad += kThreads, id += 128) {
      const float4 v = *quad;
      const float logits[4] = {v.x, v.y, v.z, v.w};
      visit(logits, id);
    }
  }
  /// visit(logit, id) for those that are numbers.
  template <class F>
  __device__ __forceinline__ void forPlain(const F& visit) const {
    forQuads([&](const float (&logits)[4], int id) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if (!isnan(logits[j])) visit(logits[j], id + j);
      }
    });
  }

  /// visit(adjusted logit, id) for this thread's ids that may be drawn and are adjusted. Whole warps call.
  template <class F>
  __device__ __forceinline__ void forAdjusted(const F& visit) const {
    forMarks([&](const Adjustment& a, const float* place) {
      if (__float_as_uint(*place) == kAdjusted) visit(row->adjusted(a, row->logits[a.id]), a.id);
    });
  }

  /// Which warp of the cluster has an id, and what else it has.
  __device__ int warpOf(int id) const { return id / 4 / (32 * depth); }
  __device__ WarpQuads quadsOf(int warp) const { return WarpQuads(warp, depth, row->vocabulary); }

 private:
  static constexpr uint32_t kAbsent = 0x7fffffff, kAdjusted = 0x7ffffffe;  // no numbers

  __device__ static int lane() { return static_cast<int>(threadIdx.x & 31); }
  __device__ static int warpOfCluster() { return static_cast<int>(clusterRank() * kWarps + (threadIdx.x >> 5)); }

  __device__ __noinline__ void markAdjusted() {
    const int first = row->placeOf(4 * quadsOf(warpOfCluster()).first);
    if (lane() == 0) firstAdjustment[threadIdx.x >> 5] = first;
    __syncwarp();  // the warp's part of the cache is there, too
    forMarks([&](const Adjustment&, float* place) {
      if (__float_as_uint(*place) != kAbsent) *place = __uint_as_float(kAdjusted);
    });
    __syncwarp();
  }

  /// visit(adjustment, place in the cache) for the adjustments of the warp's ids, a lane each.
  template <class F>
  __device__ __forceinline__ void forMarks(const F& visit) const {
    if (!row->numAdjustments) return;
    const WarpQuads quads = quadsOf(warpOfCluster());
    for (int i = firstAdjustment[threadIdx.x >> 5] + lane();; i += 32) {
      bool inside = i < row->numAdjustments;
      if (inside) {
        const Adjustment a = row->adjustments[i];
        const int quad = a.id / 4 - quads.first;
        inside = quad >= 0 && a.id < 4 * quads.end;
        if (inside) visit(a, reinterpret_cast<float*>(cache + quad / 32 * kThreads + (threadIdx.x & ~31u) + quad % 32) + a.id % 4);
      }
      if (!__all_sync(kAllLanes, inside)) return;
    }
  }
};

}  // namespace longcat::cuda
