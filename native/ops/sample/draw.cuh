// sample on a GPU: steps 3 to 5 of params.h. Where topK is on or topP is below 1, what is left is a prefix of the order of rank (the
// candidates are so many that topP's prefix ends among them), so that neither their number nor the tail matters. Else the order is 64
// candidates by rank and then the tail by id.
#pragma once

#include "ops/sample/philox.h"
#include "ops/sample/search.cuh"

namespace longcat::cuda {

/// The mass that a draw must go beyond, as the smallest that it may reach: u · left rounded as the CPU does, plus one unit.
__device__ inline Mass drawGoal(const Row& row, Mass left) {
  const double target = __dmul_rn(uniform(row.field[SampleField::seed], row.position), doubleOf(left));
  return clampMass(massBound(target, false) + 1, 1, left);
}

/// The mass that topP's prefix must reach, of `left` in all.
__device__ inline Mass topPGoal(const Row& row, Mass left) {
  return clampMass(massBound(__dmul_rn(row.field[SampleField::topP], doubleOf(left)), true), 1, left);
}

/// The mass of the ids within `limit`.
template <bool kPlain>
__device__ __noinline__ Mass massWithin(const Row& row, SampleShared& s, const Exponential& exponential, const Limit& limit) {
  Mass sum = 0;
  forAllowed<kPlain, true>(row, [&](Key key) {
    if (limit.holds(key)) sum += exponential.keptMass(valueOf<kPlain>(key.high));
  });
  return blockMass(sum, s.sums);
}

/// The mass of the buffer's first `count` keys.
template <bool kPlain>
__device__ __noinline__ Mass massOfBest(const Search<kPlain>& search, const Exponential& exponential, int count) {
  Mass sum = 0;
  for (int i = threadIdx.x; i < count; i += kThreads) sum += exponential.keptMass(search.value(i));
  return blockMass(sum, search.s.sums);
}

/// The draw among the `within` best, of which minP and topP leave a prefix by rank. The buffer holds the best one at least.
template <bool kPlain>
__device__ __noinline__ int32_t drawWithin(Search<kPlain>& search, int within) {
  const Row& row = search.row;
  const Key best = search.at(0);
  const Exponential exponential(row, search.value(0));
  if (exponential.flat) return best.id();

  Limit limit;
  Mass left;
  if (search.held >= within) {
    left = massOfBest(search, exponential, within);
  } else {
    if (within < search.allowed) limit.last = search.ranked(within);
    left = massWithin<kPlain>(row, search.s, exponential, limit);
  }
  if (row.field[SampleField::topP] < 1) left = search.reach(exponential, limit, within, topPGoal(row, left)).weight;
  return search.reach(exponential, limit, within, drawGoal(row, left)).key.id();
}

/// The draw where topK is on or topP below 1.
template <bool kPlain>
__device__ int32_t drawByRank(Search<kPlain>& search) {
  constexpr int kHeld = 512;  // enough for topP on nearly every row of a trained model
  const Row& row = search.row;
  const int within = row.topK && row.topK < search.allowed ? static_cast<int>(row.topK) : search.allowed;
  search.hold(row.topK && within <= kBuffer ? within : kHeld);
  return drawWithin(search, within);
}

/// The id among those of quads [first, end) that rank behind `last` at which the running mass, from `before` on, reaches `goal`. It must
/// be reached.
template <bool kPlain>
__device__ __noinline__ int32_t drawFromQuads(const Row& row, SampleShared& s, const Exponential& exponential, Key last, int first, int end, Mass before, Mass goal) {
  const bool aligned = isAligned(row.logits);
  int place = kPlain ? 0 : row.placeOf(4 * first);
  for (; first < end; first += kThreads) {
    const int quad = first + static_cast<int>(threadIdx.x);
    uint64_t mass[4] = {};
    if (quad < end) {
      float logits[4];
      const uint32_t bits = loadQuad(row, aligned, quad, logits);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if (!(bits >> j & 1)) continue;
        const Key key = keyOf<kPlain>(row, 4 * quad + j, logits[j], place);
        if (ranksBefore(last, key)) mass[j] = exponential.keptMass(valueOf<kPlain>(key.high));
      }
    }
    const Mass own = static_cast<Mass>(mass[0]) + mass[1] + mass[2] + mass[3];
    Mass total;
    Mass running = before + blockInclusive(own, s.sums, &total) - own;
    if (running < goal && running + own >= goal) {  // at most one thread
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if (running < goal && running + mass[j] >= goal) s.foundKey.low = ~static_cast<uint32_t>(4 * quad + j);
        running += mass[j];
      }
    }
    before += total;
    if (before >= goal) break;  // alike in all threads
  }
  __syncthreads();
  const int32_t id = s.foundKey.id();
  __syncthreads();
  return id;
}

/// The same of the whole row. s.segments: the mass of each warp's segment of ids.
template <bool kPlain>
__device__ int32_t drawFromTail(const Row& row, SampleShared& s, const Exponential& exponential, Key last, Mass goal) {
  int segment = 0;
  Mass before = 0;
  for (; segment < kWarps - 1 && before + s.segments[segment] < goal; ++segment) before += s.segments[segment];
  const int width = quadsOfWarp(row), first = segment * width;
  return drawFromQuads<kPlain>(row, s, exponential, last, first, min(first + width, numQuads(row.vocabulary)), before, goal);
}

/// The draw among all that minP leaves: kFirstCandidates by rank, then the tail by id.
template <bool kPlain>
__device__ __noinline__ int32_t drawWithTail(Search<kPlain>& search) {
  const Row& row = search.row;
  SampleShared& s = search.s;
  search.hold(kFirstCandidates);
  const int candidates = min(search.allowed, static_cast<int>(kFirstCandidates));
  const Exponential exponential(row, search.value(0));
  if (exponential.flat) return search.at(0).id();

  const Key last = search.at(candidates - 1);
  const Mass sum = massOfBest(search, exponential, candidates);
  Mass left = sum;
  if (search.allowed > candidates && !(exponential(search.value(candidates - 1)) < exponential.minP)) {
    Mass segment = 0;
    forAllowed<kPlain, true>(row, [&](Key key) {
      if (ranksBefore(last, key)) segment += exponential.keptMass(valueOf<kPlain>(key.high));
    });
    segment = warpMass(segment);
    if ((threadIdx.x & 31) == 0) s.segments[threadIdx.x >> 5] = segment;
    __syncthreads();
    for (int i = 0; i < kWarps; ++i) left += s.segments[i];
  }
  const Mass goal = drawGoal(row, left);
  if (goal > sum) return drawFromTail<kPlain>(row, s, exponential, last, goal - sum);
  return findInBuffer(s, 0, candidates, 0, goal, [&](int i) { return Mass{exponential.keptMass(search.value(i))}; }).key.id();
}

/// The best of the warp's keys, to every lane.
__device__ __forceinline__ Key warpBest(Key best) {
#pragma unroll
  for (int d = 16; d > 0; d >>= 1) {
    const Key other = {__shfl_xor_sync(kAllLanes, static_cast<unsigned long long>(best.high), d), __shfl_xor_sync(kAllLanes, best.low, d)};
    if (ranksBefore(other, best)) best = other;
  }
  return best;
}

/// The best of the block's keys, each warp's to every lane of it, to every thread.
__device__ __forceinline__ Key blockBest(Key best, SampleShared& s) {
  __syncthreads();
  if ((threadIdx.x & 31) == 0) s.high[threadIdx.x >> 5] = best.high, s.low[threadIdx.x >> 5] = best.low;
  __syncthreads();
  return warpBest({s.high[threadIdx.x & 31], s.low[threadIdx.x & 31]});
}

/// The best id by adjusted logit, ties by lower id; −1 where none may be drawn.
template <bool kPlain>
__device__ __noinline__ int32_t greedyToken(const Row& row, SampleShared& s) {
  Key best = {0, 0};
  forAllowed<kPlain, false>(row, [&](Key key) {
    if (ranksBefore(key, best)) best = key;
  });
  best = blockBest(warpBest(best), s);
  return best.high == 0 && best.low == 0 ? -1 : best.id();
}

}  // namespace longcat::cuda
