// ep_dispatch on a GPU: which ranks each row goes to, and as which of the rows that go there. A block works on a tile of rows, one a thread; whether
// a row goes to a rank is a bit, so a place is a count of bits, whatever the order of threads.
#pragma once

#include "cuda/exchange.cuh"
#include "cuda/reduce.cuh"
#include "ops/ep_dispatch/params.h"

namespace longcat::cuda {

constexpr int kDispatchThreads = 512;  // and rows of a tile
constexpr int kDispatchWarps = kDispatchThreads / 32;

/// Of the tile that was looked at last.
class Destinations {
 public:
  static size_t sharedBytes(int64_t ranks) { return static_cast<size_t>(ranks) * ((2 * kDispatchWarps + 1) * sizeof(int32_t) + sizeof(std::byte*)); }

  /// In sharedBytes() of shared memory. All threads of the block call skip(), look(). Windows are known behind them.
  __device__ __forceinline__ Destinations(const EpDispatchParams& p, void* shared)
      : p_(p), ranks_(static_cast<int>(p.ranks)), windows_(static_cast<std::byte**>(shared)), sent_(reinterpret_cast<uint32_t*>(windows_ + ranks_)),
        before_(reinterpret_cast<int32_t*>(sent_ + ranks_ * kDispatchWarps)), next_(before_ + ranks_ * kDispatchWarps),
        reciprocal_(0xffffffffu / static_cast<uint32_t>(p.localExperts)),
        inFours_(p.topK % 4 == 0 && p.topK <= 4 * kFours && reinterpret_cast<uintptr_t>(p.ids) % sizeof(int4) == 0) {
    for (int r = static_cast<int>(threadIdx.x); r < ranks_; r += kDispatchThreads) next_[r] = 0;
    // By the warp whose rows come last, so that the others need not wait for the table.
    if (threadIdx.x >= kDispatchThreads - 32) {
      for (int r = lane(); r < ranks_; r += 32) windows_[r] = targetOf(p, r).window;
    }
  }

  /// Counts rows [0, rows), ahead of the first tile. Like look() it reads the first rows' experts before it needs to know how many there are.
  __device__ __forceinline__ void skip(int64_t rows) {
    constexpr int kAtOnce = 4;  // rows of a thread
    __syncthreads();
    for (int group = 0; group < ranks_; group += 32) {
      int32_t count = 0;  // of rank group + lane
      int64_t first = 0;
      do {
        uint32_t ranks[kAtOnce];
        ranksOf(first + threadIdx.x, group, ranks);
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i, first += kDispatchThreads) {
          const uint32_t live = first + threadIdx.x < rows ? ranks[i] : 0;
          for (int r = 0; r < 32 && group + r < ranks_; ++r) {
            const int32_t rowsThere = __popc(__ballot_sync(kAllLanes, live >> r & 1u));
            if (r == lane()) count += rowsThere;
          }
        }
      } while (first < rows);
      if (count > 0) atomicAdd(&next_[group + lane()], count);
    }
    __syncthreads();
  }

  /// Looks at rows [first, min(first + kDispatchThreads, rows)), which follow those of earlier calls. `rows` as it is read, and not looked at
  /// before the rows' experts are asked for.
  __device__ __forceinline__ void look(int64_t first, int32_t rows) {
    for (int group = 0; group < ranks_; group += 32) {
      uint32_t ranks[1] = {};
      // Warps without rows leave the instructions to the others.
      if (first + (threadIdx.x & ~31u) < p_.capacity) ranksOf(first + threadIdx.x, group, ranks);
      const uint32_t live = static_cast<int32_t>(first + threadIdx.x) < rows ? ranks[0] : 0;
      for (int r = 0; r < 32 && group + r < ranks_; ++r) {
        const uint32_t bits = __ballot_sync(kAllLanes, live >> r & 1u);
        if (lane() == 0) sent_[static_cast<int>(threadIdx.x >> 5) * ranks_ + group + r] = bits;
      }
    }
    __syncthreads();
    for (int r = static_cast<int>(threadIdx.x); r < ranks_; r += kDispatchThreads) {
      int32_t next = next_[r];
#pragma unroll
      for (int warp = 0; warp < kDispatchWarps; ++warp) {
        before_[warp * ranks_ + r] = next;
        next += __popc(sent_[warp * ranks_ + r]);
      }
      next_[r] = next;
    }
    __syncthreads();
  }

  /// Which of the rows that are sent to rank r row `inTile` of the tile is; -1: it is not sent there.
  __device__ __forceinline__ int32_t placeOf(int inTile, int r) const {
    const int word = (inTile >> 5) * ranks_ + r;
    const uint32_t bits = sent_[word], own = 1u << (inTile & 31);
    return bits & own ? before_[word] + __popc(bits & (own - 1)) : -1;
  }

  /// Rows that go to rank r, up to the tile's end.
  __device__ __forceinline__ int32_t count(int r) const { return next_[r]; }

  /// Where rank r is sent to.
  __device__ __forceinline__ Target target(int r) const { return {windows_[r], p_.nccl.outbox == nullptr ? p_.rank : r}; }

 private:
  static constexpr int kFours = 3;  // of a row's experts that are read at once, if these are all

  static __device__ __forceinline__ int lane() { return static_cast<int>(threadIdx.x) & 31; }

  /// Of rows first, first + kDispatchThreads, …: bit r, the row has an expert of rank group + r. Also of rows that are not live; none beyond the capacity.
  template <int kRows>
  __device__ __forceinline__ void ranksOf(int64_t first, int group, uint32_t (&ranks)[kRows]) const {
    const auto add = [&](int i, int32_t id) {
      const int r = rankOf(static_cast<uint32_t>(id)) - group;
      if (r >= 0 && r < 32 && group + r < ranks_) ranks[i] |= 1u << r;
    };
#pragma unroll
    for (int i = 0; i < kRows; ++i) ranks[i] = 0;
    if (inFours_) {
      constexpr int32_t kNone = INT32_MAX;
      int4 ids[kRows][kFours];
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        const int64_t row = first + i * kDispatchThreads;
#pragma unroll
        for (int k = 0; k < kFours; ++k) {
          ids[i][k] = row < p_.capacity && 4 * k < p_.topK ? *reinterpret_cast<const int4*>(p_.ids + row * p_.topK + 4 * k) : int4{kNone, kNone, kNone, kNone};
        }
      }
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
#pragma unroll
        for (int k = 0; k < kFours; ++k) add(i, ids[i][k].x), add(i, ids[i][k].y), add(i, ids[i][k].z), add(i, ids[i][k].w);
      }
      return;
    }
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const int64_t row = first + i * kDispatchThreads;
      if (row >= p_.capacity) continue;
      for (int64_t k = 0; k < p_.topK; ++k) add(i, p_.ids[row * p_.topK + k]);
    }
  }

  /// id ÷ localExperts: the product with its reciprocal, rounded down, is at most one less.
  __device__ __forceinline__ int rankOf(uint32_t id) const {
    const auto experts = static_cast<uint32_t>(p_.localExperts);
    const uint32_t rank = __umulhi(id, reciprocal_);
    return static_cast<int>(rank + (id - rank * experts >= experts));
  }

  const EpDispatchParams& p_;
  int ranks_;
  std::byte** windows_;  // [rank]
  uint32_t* sent_;       // [warp][rank] a bit for each row
  int32_t* before_;      // [warp][rank] rows before the warp's first that go there
  int32_t* next_;        // [rank]
  uint32_t reciprocal_;  // 2^32 ÷ localExperts, rounded down
  bool inFours_;         // ids of a row can be read four at once
};

}  // namespace longcat::cuda
