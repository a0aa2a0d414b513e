// The plan: rows sorted by expert, for moe_route's choices and for those of rows that other ranks sent. A block plans a range of experts, all by
// itself: it counts the choices of lower experts too. Which rows chose an expert is a bit each, so an entry's place is a count of bits, whatever
// the order of threads.
//
// `Choices` says whose:
//   int64_t slots               choices of a row; choice i is in slot i mod slots of row i ÷ slots
//   int64_t experts             of all blocks together
//   int32_t* expertStart        [experts+1]
//   int32_t expert(i)           choice i, negative where there is none
//   void place(i, row, entry)   choice i, one of `row`'s, has this entry of the plan
#pragma once

#include "cuda/reduce.cuh"

namespace longcat::cuda {

constexpr int64_t kPlanWords = 4096;    // of 32 rows of an expert each: what a block looks at in one pass
constexpr int64_t kPlanExperts = 1024;  // a block's, at most

struct PlanShared {
  uint32_t chosen[kPlanWords];  // [expert][word]: bit r: row 32 · word + r chose it
  int32_t before[kPlanWords];   // [expert][word]: chosen rows of the pass in lower words
  int32_t count[kPlanExperts];  // rows of each expert, in all
  int32_t next[kPlanExperts];   // each expert's first plan entry of the pass
  int64_t sums[32];
};

/// The sum of the values of this lane and those before it.
__device__ __forceinline__ int32_t sumUpTo(int32_t value) {
  const int lane = static_cast<int>(threadIdx.x) & 31;
#pragma unroll
  for (int d = 1; d < 32; d <<= 1) {
    const int32_t other = __shfl_up_sync(kAllLanes, value, d);
    if (lane >= d) value += other;
  }
  return value;
}

/// f(i, expert) for the choices [from, to), shared out over the block; several loads are under way at once.
template <int kThreads, class Choices, class F>
__device__ __forceinline__ void forChosen(const Choices& c, int64_t from, int64_t to, const F& f) {
  constexpr int kAtOnce = 8;
  for (int64_t i = from + threadIdx.x; i < to; i += kAtOnce * kThreads) {
    int32_t id[kAtOnce];
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) id[j] = i + j * kThreads < to ? c.expert(i + j * kThreads) : -1;
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      if (id[j] >= 0) f(i + j * kThreads, static_cast<int64_t>(id[j]));
    }
  }
}

/// count[e] for the block's experts, and the choices of lower experts (to every thread).
template <int kThreads, class Choices>
__device__ __forceinline__ int64_t countChoices(const Choices& c, int64_t choices, int64_t first, int64_t experts, PlanShared& s) {
  for (int64_t e = threadIdx.x; e < experts; e += kThreads) s.count[e] = 0;
  __syncthreads();
  int64_t lower = 0;
  forChosen<kThreads>(c, 0, choices, [&](int64_t, int64_t id) {
    if (id < first) ++lower;
    else if (id < first + experts) atomicAdd(&s.count[id - first], 1);
  });
  return blockSum(lower, s.sums);  // its barriers end the counting as well
}

/// next[e] and expertStart from the counts, by the block's first warp: 32 experts at a time.
template <class Choices>
__device__ __forceinline__ void startExperts(const Choices& c, int64_t first, int64_t experts, int32_t start, PlanShared& s) {
  if (threadIdx.x < 32) {
    const int lane = static_cast<int>(threadIdx.x);
    for (int64_t base = 0; base < experts; base += 32) {
      const int32_t count = base + lane < experts ? s.count[base + lane] : 0;
      const int32_t upTo = sumUpTo(count);  // of this lane's expert and those before it
      if (base + lane < experts) {
        s.next[base + lane] = start + upTo - count;
        c.expertStart[first + base + lane] = start + upTo - count;
      }
      start += __shfl_sync(kAllLanes, upTo, 31);
    }
    if (lane == 0 && first + experts == c.experts) c.expertStart[c.experts] = start;
  }
  __syncthreads();
}

/// before[e][·] for each expert, a warp each.
template <int kThreads>
__device__ __forceinline__ void countWords(int64_t experts, int64_t words, PlanShared& s) {
  const int lane = static_cast<int>(threadIdx.x) & 31;
  for (int64_t e = threadIdx.x >> 5; e < experts; e += kThreads / 32) {
    int32_t total = 0;
    for (int64_t base = 0; base < words; base += 32) {
      const bool there = base + lane < words;
      const int32_t count = there ? __popc(s.chosen[e * words + base + lane]) : 0;
      const int32_t upTo = sumUpTo(count);
      if (there) s.before[e * words + base + lane] = total + upTo - count;
      total += __shfl_sync(kAllLanes, upTo, 31);
    }
    if (lane == 0) s.count[e] = total;  // of this pass
  }
  __syncthreads();
}

/// Plans experts [first, first + experts), at most kPlanExperts. All kThreads threads of the block call; choices of rows [0, rows) are there.
template <int kThreads, class Choices>
__device__ void planExperts(const Choices& c, int64_t rows, int64_t first, int64_t experts, PlanShared& s) {
  const int64_t slots = c.slots;
  const int64_t lower = countChoices<kThreads>(c, rows * slots, first, experts, s);
  startExperts(c, first, experts, static_cast<int32_t>(lower), s);
  // Passes over as many rows as there are bits for.
  const int64_t mostWords = kPlanWords / experts, neededWords = (rows + 31) / 32, words = neededWords < mostWords ? neededWords : mostWords;
  for (int64_t begin = 0; begin < rows; begin += words * 32) {
    const int64_t end = begin + words * 32 < rows ? begin + words * 32 : rows;
    /// f(i, expert - first, row - begin) for each choice of the block's experts in these rows.
    const auto forChoices = [&](const auto& f) {
      forChosen<kThreads>(c, begin * slots, end * slots, [&](int64_t i, int64_t id) {
        const int64_t e = id - first;
        if (e >= 0 && e < experts) f(i, e, static_cast<int64_t>(static_cast<uint32_t>(i) / static_cast<uint32_t>(slots)) - begin);
      });
    };
    for (int64_t i = threadIdx.x; i < experts * words; i += kThreads) s.chosen[i] = 0;
    __syncthreads();
    forChoices([&](int64_t, int64_t e, int64_t r) { atomicOr(&s.chosen[e * words + (r >> 5)], 1u << (r & 31)); });
    __syncthreads();
    countWords<kThreads>(experts, words, s);
    forChoices([&](int64_t i, int64_t e, int64_t r) {
      const int64_t word = e * words + (r >> 5);
      c.place(i, begin + r, s.next[e] + s.before[word] + __popc(s.chosen[word] & ((1u << (r & 31)) - 1)));
    });
    __syncthreads();
    for (int64_t e = threadIdx.x; e < experts; e += kThreads) s.next[e] += s.count[e];
    __syncthreads();
  }
}

}  // namespace longcat::cuda
