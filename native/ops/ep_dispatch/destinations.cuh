// ep_dispatch on a GPU: which ranks each row goes to, and as which of the rows that go there. A block works on a tile of rows, one a thread; whether
// a row goes to a rank is a bit, so a place is a count of bits, whatever the order of threads.
#pragma once

#include "cuda/reduce.cuh"
#include "ops/ep_dispatch/params.h"

namespace longcat::cuda {

constexpr int kDispatchThreads = 512;  // and rows of a tile
constexpr int kDispatchWarps = kDispatchThreads / 32;

/// Of the tile that was looked at last.
class Destinations {
 public:
  static size_t sharedBytes(int64_t ranks) { return static_cast<size_t>(ranks) * (2 * kDispatchWarps + 1) * sizeof(int32_t); }

  /// In sharedBytes() of shared memory. All threads of the block call all methods but placeOf().
  __device__ __forceinline__ Destinations(const EpDispatchParams& p, void* shared)
      : p_(p), sent_(static_cast<uint32_t*>(shared)), before_(static_cast<int32_t*>(shared) + p.ranks * kDispatchWarps), next_(before_ + p.ranks * kDispatchWarps),
        reciprocal_(0xffffffffu / static_cast<uint32_t>(p.localExperts)), inFours_(p.topK % 4 == 0 && reinterpret_cast<uintptr_t>(p.ids) % sizeof(int4) == 0) {
    for (int64_t r = threadIdx.x; r < p.ranks; r += kDispatchThreads) next_[r] = 0;
    __syncthreads();
  }

  /// Counts rows [0, rows), ahead of the first tile.
  __device__ __forceinline__ void skip(int64_t rows) {
    for (int64_t group = 0; group < p_.ranks; group += 32) {
      int32_t count = 0;  // of rank group + lane
      for (int64_t first = 0; first < rows; first += kDispatchThreads) {
        const uint32_t ranks = ranksOf(first + threadIdx.x, rows, group);
        for (int r = 0; r < 32 && group + r < p_.ranks; ++r) {
          const int32_t rowsThere = __popc(__ballot_sync(kAllLanes, ranks >> r & 1u));
          if (r == lane()) count += rowsThere;
        }
      }
      if (count > 0) atomicAdd(&next_[group + lane()], count);
    }
    __syncthreads();
  }

  /// Looks at rows [first, min(first + kDispatchThreads, rows)), which follow those of earlier calls.
  __device__ __forceinline__ void look(int64_t first, int64_t rows) {
    for (int64_t group = 0; group < p_.ranks; group += 32) {
      const uint32_t ranks = ranksOf(first + threadIdx.x, rows, group);
      for (int r = 0; r < 32 && group + r < p_.ranks; ++r) {
        const uint32_t bits = __ballot_sync(kAllLanes, ranks >> r & 1u);
        if (lane() == 0) sent_[(threadIdx.x >> 5) * p_.ranks + group + r] = bits;
      }
    }
    __syncthreads();
    for (int64_t r = threadIdx.x; r < p_.ranks; r += kDispatchThreads) {
      int32_t next = next_[r];
#pragma unroll
      for (int warp = 0; warp < kDispatchWarps; ++warp) {
        before_[warp * p_.ranks + r] = next;
        next += __popc(sent_[warp * p_.ranks + r]);
      }
      next_[r] = next;
    }
    __syncthreads();
  }

  /// Which of the rows that are sent to rank r row `inTile` of the tile is; -1: it is not sent there.
  __device__ __forceinline__ int32_t placeOf(int inTile, int64_t r) const {
    const int64_t word = (inTile >> 5) * p_.ranks + r;
    const uint32_t bits = sent_[word], own = 1u << (inTile & 31);
    return bits & own ? before_[word] + __popc(bits & (own - 1)) : -1;
  }

  /// Rows that go to rank r, up to the tile's end.
  __device__ __forceinline__ int32_t count(int64_t r) const { return next_[r]; }

 private:
  static __device__ __forceinline__ int lane() { return static_cast<int>(threadIdx.x) & 31; }

  /// Bit r: the row has an expert of rank group + r. None beyond `rows`.
  __device__ __forceinline__ uint32_t ranksOf(int64_t row, int64_t rows, int64_t group) const {
    if (row >= rows) return 0;
    const int32_t* ids = p_.ids + row * p_.topK;
    uint32_t ranks = 0;
    const auto add = [&](int32_t id) {
      const int64_t r = rankOf(static_cast<uint32_t>(id)) - group;
      if (r >= 0 && r < 32 && group + r < p_.ranks) ranks |= 1u << r;
    };
    if (inFours_) {
#pragma unroll 3
      for (int64_t k = 0; k < p_.topK; k += 4) {
        const int4 four = *reinterpret_cast<const int4*>(ids + k);
        add(four.x), add(four.y), add(four.z), add(four.w);
      }
    } else {
      for (int64_t k = 0; k < p_.topK; ++k) add(ids[k]);
    }
    return ranks;
  }

  /// id ÷ localExperts: the product with its reciprocal, rounded down, is at most one less.
  __device__ __forceinline__ int64_t rankOf(uint32_t id) const {
    const auto experts = static_cast<uint32_t>(p_.localExperts);
    const uint32_t rank = __umulhi(id, reciprocal_);
    return rank + (id - rank * experts >= experts);
  }

  const EpDispatchParams& p_;
  uint32_t* sent_;   // [warp][rank] a bit for each row
  int32_t* before_;  // [warp][rank] rows before the warp's first that go there
  int32_t* next_;    // [rank]
  uint32_t reciprocal_;  // 2^32 ÷ localExperts, rounded down
  bool inFours_;         // ids of a row can be read four at once
};

}  // namespace longcat::cuda
