// The plan: rows sorted by expert. A block plans a range of experts, all by itself: it counts the choices of lower experts too. Whether a row chose
// an expert is a bit. Bits lie as the plan's entries do, expert by expert, each one's rows in order, so that an entry's place is how many bits come
// before its own, whatever the order of threads: one sum over all words.
#pragma once

#include <climits>

#include "cuda/reduce.cuh"
#include "ops/moe_route/params.h"

namespace longcat::cuda {

constexpr int kPlanWords = 4096;  // of 32 rows of an expert each: what a block looks at in one pass

struct PlanShared {
  alignas(16) uint32_t chosen[kPlanWords];  // at placeOf(word): bit r: row 32 · word + r of the pass chose the expert
  alignas(16) int32_t entry[kPlanWords];    // at the same place: the plan entry of the word's first bit
  int32_t end;                              // behind the last one
  int32_t sums[32];
};

/// Whether a block has bits for all experts and rows.
inline bool inOnePass(const MoeRouteParams& p) { return p.experts * ((p.capacity + 31) / 32) <= kPlanWords; }

/// n ÷ divisor without a division.
class Divisor {
 public:
  __device__ __forceinline__ explicit Divisor(uint32_t divisor) : divisor_(divisor), inverse_(UINT_MAX / divisor) {}
  __device__ __forceinline__ uint32_t quotient(uint32_t n) const {
    const uint32_t q = __umulhi(n, inverse_);  // or one too few
    return n - q * divisor_ >= divisor_ ? q + 1 : q;
  }

 private:
  uint32_t divisor_, inverse_;
};

/// By a block of kThreads threads, all of which call, when the choices of rows [0, rows) are there.
template <int kThreads>
class ExpertPlan {
 public:
  __device__ __forceinline__ ExpertPlan(const MoeRouteParams& p, int64_t rows, PlanShared& shared)
      : p_(p), s_(shared), rows_(static_cast<uint32_t>(rows)), topK_(static_cast<uint32_t>(p.topK)), slots_(topK_) {}

  /// Experts [first, first + experts).
  __device__ __forceinline__ void make(int first, int experts) {
    const uint32_t words = max(1u, (rows_ + 31) / 32);
    if (experts * words <= kPlanWords) {
      const int32_t lower = mark(first, experts, 0, rows_, words);
      sumWords(experts * words, lower);
      for (int e = static_cast<int>(threadIdx.x); e < experts; e += kThreads) p_.expertStart[first + e] = s_.entry[placeOf(e * words)];
      placeRows(first, experts, 0, rows_, words);
    } else {
      for (int e = 0; e < experts; ++e) makeInPasses(first + e);
    }
    if (threadIdx.x == 0 && first + experts == p_.experts) p_.expertStart[p_.experts] = s_.end;
  }

 private:
  static constexpr int kHeld = 12;  // choices of a thread that are under way at once, and are read no more if they are all it has

  /// An expert of more rows than there are bits for.
  __device__ __forceinline__ void makeInPasses(int expert) {
    constexpr uint32_t kRows = kPlanWords * 32;
    int32_t entry = 0;
    for (uint32_t begin = 0; begin < rows_; begin += kRows) entry += mark(expert, 1, begin, min(begin + kRows, rows_), kPlanWords);
    if (threadIdx.x == 0) p_.expertStart[expert] = entry;
    for (uint32_t begin = 0; begin < rows_; begin += kRows) {
      const uint32_t end = min(begin + kRows, rows_);
      mark(expert, 1, begin, end, kPlanWords);
      sumWords(kPlanWords, entry);
      placeRows(expert, 1, begin, end, kPlanWords);
      entry = s_.end;
    }
  }

  /// Where a word lies. A thread adds neighbouring words, four at a time: those of eight threads are then in banks of their own.
  static __device__ __forceinline__ uint32_t placeOf(uint32_t word) { return word ^ ((word >> 5 & 7) << 2); }

  /// f(choice, id) for all choices of rows [begin, end).
  template <class F>
  __device__ __forceinline__ void forChoices(uint32_t begin, uint32_t end, const F& f) {
    for (uint32_t first = begin * topK_; first < end * topK_; first += kHeld * kThreads) {
      hold(first, end * topK_);
#pragma unroll
      for (int j = 0; j < kHeld; ++j) {
        if (held_[j] >= 0) f(first + j * kThreads + threadIdx.x, held_[j]);
      }
    }
  }
  /// The thread's choices of those from `first` on, as far as `end`: -1 behind it.
  __device__ __forceinline__ void hold(uint32_t first, uint32_t end) {
    if (first == heldFrom_) return;
    heldFrom_ = first;
#pragma unroll
    for (int j = 0; j < kHeld; ++j) {
      const uint32_t i = first + j * kThreads + threadIdx.x;
      held_[j] = i < end ? __ldcg(p_.ids + i) : -1;
    }
  }

  /// The bits of the experts in `words` words each, from row `begin` on; returns how many choices of lower experts these rows have.
  __device__ __forceinline__ int32_t mark(int first, uint32_t experts, uint32_t begin, uint32_t end, uint32_t words) {
    hold(begin * topK_, end * topK_);  // under way
    __syncthreads();                   // what was there has been read
    const uint32_t most = min(static_cast<uint32_t>(kPlanWords), (experts * words + 31) / 32 * 32);
    for (uint32_t i = threadIdx.x; i < most; i += kThreads) s_.chosen[i] = 0;
    __syncthreads();
    int32_t lower = 0;
    forChoices(begin, end, [&](uint32_t i, int id) {
      const auto e = static_cast<uint32_t>(id - first);
      const uint32_t row = slots_.quotient(i) - begin;
      if (e < experts) atomicOr(&s_.chosen[placeOf(e * words + row / 32)], 1u << row % 32);
      lower += id < first;
    });
    if (first > 0) return blockSum(lower, s_.sums);  // its barriers end the marking as well
    __syncthreads();
    return 0;
  }

  /// `entry` of the first `words` words, and the end, where the first one is `start`.
  __device__ __forceinline__ void sumWords(uint32_t words, int32_t start) {
    const uint32_t own = (words + 4 * kThreads - 1) / (4 * kThreads) * 4, from = threadIdx.x * own, to = min(from + own, (words + 3) / 4 * 4);
    int32_t count = 0;
    for (uint32_t w = from; w < to; w += 4) {
      const uint4 chosen = *reinterpret_cast<const uint4*>(&s_.chosen[placeOf(w)]);
      count += __popc(chosen.x) + __popc(chosen.y) + __popc(chosen.z) + __popc(chosen.w);
    }
    const int32_t end = start + blockInclusiveSum(count, s_.sums);
    int32_t entry = end - count;
    for (uint32_t w = from; w < to; w += 4) {
      const uint4 chosen = *reinterpret_cast<const uint4*>(&s_.chosen[placeOf(w)]);
      const int32_t second = entry + __popc(chosen.x), third = second + __popc(chosen.y), fourth = third + __popc(chosen.z);
      *reinterpret_cast<int4*>(&s_.entry[placeOf(w)]) = make_int4(entry, second, third, fourth);
      entry = fourth + __popc(chosen.w);
    }
    if (threadIdx.x == kThreads - 1) s_.end = end;
    __syncthreads();
  }

  /// slotPlan and planRow of rows [begin, end), as they are marked.
  __device__ __forceinline__ void placeRows(int first, uint32_t experts, uint32_t begin, uint32_t end, uint32_t words) {
    forChoices(begin, end, [&](uint32_t i, int id) {
      const auto e = static_cast<uint32_t>(id - first);
      if (e >= experts) return;
      const uint32_t row = slots_.quotient(i), at = placeOf(e * words + (row - begin) / 32);
      const int32_t entry = s_.entry[at] + __popc(s_.chosen[at] & ((1u << (row - begin) % 32) - 1));
      p_.slotPlan[i] = entry;
      p_.planRow[entry] = static_cast<int32_t>(row);
    });
  }

  const MoeRouteParams& p_;
  PlanShared& s_;
  uint32_t rows_, topK_;
  Divisor slots_;
  uint32_t heldFrom_ = UINT_MAX;
  int32_t held_[kHeld];
};

}  // namespace longcat::cuda
