// ep_dispatch on a GPU: the plan of the rows that came, by one block. A thread has a row at a time, all its experts at once. Whether a row chose an
// expert is a bit, so an entry's place is a count of bits, whatever the order of threads. One pass over as many rows as there are bits for.
//
// The experts of a row say themselves whether they have come (cuda/arrivals.cuh): they are numbered from 1 on, and what is behind them is -1. Zeros are
// there in time: a rank sends the next exchange's experts when it has heard from all ranks that they are at the end of this one (ep_combine).
#pragma once

#include "cuda/arrivals.cuh"
#include "cuda/reduce.cuh"
#include "ops/ep_dispatch/destinations.cuh"
#include "ops/ep_dispatch/received.cuh"

namespace longcat::cuda {

constexpr int kReceivedWords = 4096;    // of 32 rows of an expert each: what a pass looks at
constexpr int kReceivedExperts = 1024;  // planned at once, at most

struct ReceivedPlanShared {
  uint32_t chosen[kReceivedWords];   // [word][expert] bit r: row 32 · word + r of the pass chose it
  int32_t entry[kReceivedWords];     // [word][expert] plan entry of the first row that did
  int32_t next[kReceivedExperts];    // [expert] rows that chose it; then its first plan entry of the pass
  int32_t warpTotals[kDispatchWarps];
};

/// An expert of a window's own rank on its way there; -1: none.
__device__ __forceinline__ int32_t arrivalOf(int32_t expert) { return expert < 0 ? -1 : expert + 1; }

/// kVector slots of a row, read and written at once.
template <int kVector>
struct alignas(kVector * sizeof(int32_t)) Slots {
  int32_t at[kVector];
};
__device__ __forceinline__ Slots<4> loadArrival(const Slots<4>* from) {
  const uint4 v = loadArrival(reinterpret_cast<const uint4*>(from));
  return {{static_cast<int32_t>(v.x), static_cast<int32_t>(v.y), static_cast<int32_t>(v.z), static_cast<int32_t>(v.w)}};
}
__device__ __forceinline__ Slots<1> loadArrival(const Slots<1>* from) { return {{static_cast<int32_t>(loadArrival(reinterpret_cast<const uint32_t*>(from)))}}; }

/// Experts [first, first + experts) of this rank's. kVector: slots of a row are a multiple of it, and aligned so.
template <int kVector>
class ReceivedPlan {
 public:
  __device__ __forceinline__ ReceivedPlan(const EpDispatchParams& p, const int32_t* firstRow, int first, int experts, ReceivedPlanShared& s)
      : p_(p), firstRow_(firstRow), first_(first), experts_(experts), s_(s) {}

  /// Their first plan entry is `start`; returns what is behind their last, or -1 where waiting for them was given up. All threads of the block call.
  __device__ __forceinline__ int32_t make(int32_t start) {
    const int32_t rows = firstRow_[p_.ranks];
    const int mostWords = kReceivedWords / experts_, neededWords = (rows + 31) / 32, words = neededWords < mostWords ? neededWords : mostWords;
    const bool onePass = neededWords <= mostWords, inHand = words * 32 <= kDispatchThreads && p_.slots <= kInHand;  // a thread has a row of a pass at most
    if (!onePass) {
      forExperts([&](int e) { s_.next[e] = 0; });
      __syncthreads();
      const bool there = forRows(0, rows, [&](int32_t, const ReceivedRow&, int, const Ids& ids) {
        forChosen(ids, [&](uint32_t e) { atomicAdd(&s_.next[e], 1); });
      });
      if (!__syncthreads_and(there)) return -1;
      start = startExperts(start);
    }
    int32_t begin = 0;
    do {
      const int32_t end = begin + words * 32 < rows ? begin + words * 32 : rows;
      for (int i = static_cast<int>(threadIdx.x); i < words * experts_; i += kDispatchThreads) s_.chosen[i] = 0;
      __syncthreads();
      Ids own;
      const bool there = forRows(begin, end, [&](int32_t r, const ReceivedRow&, int, const Ids& ids) {
        forChosen(ids, [&](uint32_t e) { atomicOr(&s_.chosen[(r >> 5) * experts_ + e], 1u << (r & 31)); });
        own = ids;
      });
      if (!__syncthreads_and(there)) return -1;
      if (onePass) {
        forExperts([&](int e) {
          int32_t count = 0;
          for (int word = 0; word < words; ++word) count += __popc(s_.chosen[word * experts_ + e]);
          s_.next[e] = count;
        });
        start = startExperts(start);
      }
      forExperts([&](int e) {
        int32_t entry = s_.next[e];
        for (int word = 0; word < words; ++word) {
          s_.entry[word * experts_ + e] = entry;
          entry += __popc(s_.chosen[word * experts_ + e]);
        }
        s_.next[e] = entry;
      });
      __syncthreads();
      const int32_t row = begin + static_cast<int32_t>(threadIdx.x);
      if (!inHand) forRows(begin, end, [&](int32_t r, const ReceivedRow& at, int slot, const Ids& ids) { placeRow(r, at, slot, ids); });
      else if (row < end) placeRow(row - begin, receivedRow(firstRow_, p_.ranks, row), 0, own);
      __syncthreads();
      begin = end;
    } while (begin < rows);
    return start;
  }

 private:
  static constexpr int kInHand = kVector == 4 ? 12 : 4;  // slots of a row that are under way at once: of twelve experts all
  static constexpr int kVectors = kInHand / kVector;
  struct Ids {
    Slots<kVector> of[kVectors];
  };

  static __device__ __forceinline__ int lane() { return static_cast<int>(threadIdx.x) & 31; }

  /// f(e) for each of the experts; always by the same thread.
  template <class F>
  __device__ __forceinline__ void forExperts(const F& f) const {
    for (int e = static_cast<int>(threadIdx.x); e < experts_; e += kDispatchThreads) f(e);
  }

  __device__ __forceinline__ int32_t* idsOf(const ReceivedRow& at) const {
    return reinterpret_cast<int32_t*>(p_.window + p_.layout.ids) + (at.source * p_.windowTokens + at.j) * p_.slots;
  }

  /// Slots [slot, slot + kInHand) of a row, when they have come; -1 behind the last. False: given up.
  __device__ __forceinline__ bool take(const ReceivedRow& at, int slot, Ids& ids) const {
    const int32_t* from = idsOf(at) + slot;
    for (Patience patience(p_.control);;) {
      bool there = true;
#pragma unroll
      for (int v = 0; v < kVectors; ++v) {
        const bool has = slot + v * kVector < p_.slots;
        if (has) ids.of[v] = loadArrival(reinterpret_cast<const Slots<kVector>*>(from + v * kVector));
#pragma unroll
        for (int i = 0; i < kVector; ++i) {
          if (!has) ids.of[v].at[i] = -1;
          there = there && ids.of[v].at[i] != 0;
        }
      }
      if (there) return true;
      if (!patience.waitFor(at.source)) return false;
    }
  }

  /// f(row - begin, where it lies, first slot, its experts) for rows [begin, end), kInHand slots at a time. False: given up.
  template <class F>
  __device__ __forceinline__ bool forRows(int32_t begin, int32_t end, const F& f) const {
    for (int32_t row = begin + static_cast<int32_t>(threadIdx.x); row < end; row += kDispatchThreads) {
      const ReceivedRow at = receivedRow(firstRow_, p_.ranks, row);
      for (int slot = 0; slot < p_.slots; slot += kInHand) {
        Ids ids;
        if (!take(at, slot, ids)) return false;
        f(row - begin, at, slot, ids);
      }
    }
    return true;
  }

  /// f(expert - first) for each of these experts among a row's.
  template <class F>
  __device__ __forceinline__ void forChosen(const Ids& ids, const F& f) const {
#pragma unroll
    for (int n = 0; n < kInHand; ++n) {
      const uint32_t e = expertOf(ids.of[n / kVector].at[n % kVector]);
      if (e < static_cast<uint32_t>(experts_)) f(e);
    }
  }

  /// Its number among these experts; of others, and of none, a larger one.
  __device__ __forceinline__ uint32_t expertOf(int32_t arrival) const { return static_cast<uint32_t>(arrival) - static_cast<uint32_t>(first_ + 1); }

  /// From counts to first plan entries, expertStart as well; returns the next expert's. Between threads `next` is not handed on.
  __device__ __forceinline__ int32_t startExperts(int32_t start) {
    const int warp = static_cast<int>(threadIdx.x) >> 5;
    for (int base = 0; base < experts_; base += kDispatchThreads) {
      const int e = base + static_cast<int>(threadIdx.x);
      const int32_t count = e < experts_ ? s_.next[e] : 0, upTo = warpInclusiveSum(count);
      if (base > 0) __syncthreads();  // before the totals are others
      if (lane() == 31) s_.warpTotals[warp] = upTo;
      __syncthreads();
      const int32_t total = lane() < kDispatchWarps ? s_.warpTotals[lane()] : 0, totals = warpInclusiveSum(total);
      const int32_t entry = start + __shfl_sync(kAllLanes, totals - total, warp) + upTo - count;
      if (e < experts_) s_.next[e] = p_.expertStart[first_ + e] = entry;
      start += __shfl_sync(kAllLanes, totals, 31);
    }
    return start;
  }

  /// slotPlan and planRow of a row's slots from `slot` on. Nobody needs its experts any more after the last of this rank's.
  __device__ __forceinline__ void placeRow(int32_t r, const ReceivedRow& at, int slot, const Ids& ids) const {
    int32_t* slotPlan = p_.slotPlan + (at.source * p_.capacity + at.j) * p_.slots + slot;
    int32_t* arrivals = idsOf(at) + slot;
    const uint32_t lower = (1u << (r & 31)) - 1;
    const bool last = first_ + experts_ == p_.localExperts;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      if (slot + v * kVector >= p_.slots) continue;
      auto* to = reinterpret_cast<Slots<kVector>*>(slotPlan + v * kVector);
      Slots<kVector> entries;
      if (first_ > 0) entries = *to;  // of lower experts
#pragma unroll
      for (int i = 0; i < kVector; ++i) {
        if (first_ == 0) entries.at[i] = -1;
        const uint32_t e = expertOf(ids.of[v].at[i]);
        if (e >= static_cast<uint32_t>(experts_)) continue;
        const int word = (r >> 5) * experts_ + static_cast<int>(e);
        entries.at[i] = s_.entry[word] + __popc(s_.chosen[word] & lower);
        p_.planRow[entries.at[i]] = static_cast<int32_t>(at.source * p_.receivedStride + at.j);
      }
      *to = entries;
      if (last) *reinterpret_cast<Slots<kVector>*>(arrivals + v * kVector) = {};
    }
  }

  const EpDispatchParams& p_;
  const int32_t* firstRow_;
  int first_, experts_;
  ReceivedPlanShared& s_;
};

template <int kVector>
__device__ __forceinline__ bool planReceived(const EpDispatchParams& p, const int32_t* firstRow, ReceivedPlanShared& s) {
  int32_t start = 0;
  for (int64_t first = 0; first < p.localExperts; first += kReceivedExperts) {
    const int64_t left = p.localExperts - first;
    start = ReceivedPlan<kVector>(p, firstRow, static_cast<int>(first), static_cast<int>(left < kReceivedExperts ? left : kReceivedExperts), s).make(start);
    if (start < 0) return false;
  }
  if (threadIdx.x == 0) p.expertStart[p.localExperts] = start;
  return true;
}

/// Rows are numbered as firstRow has it. All threads of the block call. False: waiting for the rows' experts was given up.
__device__ __forceinline__ bool planReceived(const EpDispatchParams& p, const int32_t* firstRow, ReceivedPlanShared& s) {
  const bool vectors = p.slots % 4 == 0 && reinterpret_cast<uintptr_t>(p.slotPlan) % alignof(Slots<4>) == 0;
  return vectors ? planReceived<4>(p, firstRow, s) : planReceived<1>(p, firstRow, s);
}

/// A plan of nothing, for what follows an exchange that was given up.
__device__ __forceinline__ void planNothing(const EpDispatchParams& p) {
  for (int64_t e = threadIdx.x; e <= p.localExperts; e += kDispatchThreads) p.expertStart[e] = 0;
  for (int64_t i = threadIdx.x; i < p.ranks * p.capacity * p.slots; i += kDispatchThreads) p.slotPlan[i] = -1;
}

}  // namespace longcat::cuda
