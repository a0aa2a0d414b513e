// sample on a GPU: one row by one block. A greedy row is one pass over its logits; a draw collects the best ids in shared memory
// (search.cuh) and draws (draw.cuh). Sums of exponentials are exact (mass.cuh), so that a draw does not depend on how they were found.
#pragma once

#include "ops/op.h"
#include "ops/sample/draw.cuh"
#include "ops/token_logprobs/log_sum_exp.cuh"

namespace longcat::cuda {

static_assert(kThreads == kLogSumThreads && kWarps == 32);
static_assert(kCandidates <= kBuffer && kMaxLogprobs <= kBuffer);

/// How many ids the host sees of a row whose best kCandidates are held (step 3 of params.h).
template <bool kPlain>
__device__ int numListed(const Search<kPlain>& search, const Exponential& exponential, Mass all) {
  const Row& row = search.row;
  const int most = min(search.allowed, static_cast<int>(kCandidates));
  if (row.topK) return row.topK < most ? static_cast<int>(row.topK) : most;
  int count = min(most, static_cast<int>(kFirstCandidates));
  if (!(row.field[SampleField::topP] < 1) || exponential.flat) return count;
  const double goal = __dmul_rn(row.field[SampleField::topP], doubleOf(all));
  while (count < most && doubleOf(massOfBest(search, exponential, count)) < goal) count = min(most, count * static_cast<int>(kMoreCandidates));
  return count;
}

/// What a draw by the host sees: up to kCandidates candidates, and the sum and number of all others.
template <bool kPlain>
__device__ __noinline__ void writeCandidates(const SampleParams& p, int64_t i, const Row& row, SampleShared& s) {
  Search<kPlain> search(row, s);
  search.hold(static_cast<int>(kCandidates));
  Exponential exponential(row, search.allowed ? search.value(0) : 0.0);
  exponential.minP = 0;  // the host drops by itself
  const Mass all = search.allowed ? massWithin<kPlain>(row, s, exponential, Limit{}) : 0;
  const int listed = search.allowed ? numListed(search, exponential, all) : 0;
  const Mass inside = massOfBest(search, exponential, listed);
  for (int j = threadIdx.x; j < kCandidates; j += kThreads) {
    p.candidateIds[i * kCandidates + j] = j < listed ? search.at(j).id() : -1;
    p.candidateExps[i * kCandidates + j] = j >= listed ? 0.0 : j == 0 ? 1.0 : exponential(search.value(j));
  }
  if (threadIdx.x == 0) {
    p.candidateStats[2 * i] = doubleOf(all - inside);
    p.candidateStats[2 * i + 1] = search.allowed - listed;
  }
  __syncthreads();
}

template <bool kPlain>
__device__ __noinline__ int32_t chooseTokenOf(const SampleParams& p, int64_t i, SampleShared& s) {
  const Row& row = s.row;
  if (row.field[hostDraw] != 0 && p.candidateIds) writeCandidates<kPlain>(p, i, row, s);
  if (isForced(p, row.field)) return static_cast<int32_t>(row.field[SampleField::forced]);
  if (!(row.field[SampleField::temperature] > 0)) return greedyToken<kPlain>(row, s);
  Search<kPlain> search(row, s);
  if (!search.allowed) return -1;
  return row.topK || row.field[SampleField::topP] < 1 ? drawByRank(search) : drawWithTail(search);
}

/// The token of s.row; −1 if none may be drawn.
__device__ inline int32_t chooseToken(const SampleParams& p, int64_t i, SampleShared& s) {
  return s.row.plain() ? chooseTokenOf<true>(p, i, s) : chooseTokenOf<false>(p, i, s);
}

/// An id that is allowed whatever the row's own mask says: an empty mask must not end in an id that does not exist.
__device__ __noinline__ inline int32_t lowestAllowed(const Row& row) {
  for (int id = 0; id < row.vocabulary; id += 32) {
    const uint32_t bits = row.allowed[id >> 5];
    const int lowest = id + __ffs(static_cast<int>(bits)) - 1;
    if (bits) return lowest < row.vocabulary ? lowest : 0;
  }
  return 0;
}

/// The most probable allowed ids by raw logit; entries beyond are (−1, the floor).
__device__ __noinline__ inline void listLogprobs(const SampleParams& p, int64_t i, double asked, double logSum, SampleShared& s) {
  int listed = static_cast<int>(asked < kMaxLogprobs ? asked : kMaxLogprobs);
  if (listed > 0) {
    if (threadIdx.x == 0) s.raw = s.row, s.raw.makeRaw();
    __syncthreads();
    Search<true> search(s.raw, s);
    search.hold(listed);
    listed = min(listed, search.allowed);
  }
  for (int j = threadIdx.x; j < kMaxLogprobs; j += kThreads) {
    p.topIds[i * kMaxLogprobs + j] = j < listed ? static_cast<int32_t>(~s.low[j]) : -1;
    p.topLogprobs[i * kMaxLogprobs + j] =
        j < listed ? logprobOnDevice(static_cast<float>(valueOf<true>(s.high[j])), logSum) : kLogprobFloor;
  }
}

__device__ inline void listNothing(const SampleParams& p, int64_t i) {
  if (threadIdx.x < kMaxLogprobs) {
    p.topIds[i * kMaxLogprobs + threadIdx.x] = -1;
    p.topLogprobs[i * kMaxLogprobs + threadIdx.x] = kLogprobFloor;
  }
}

/// Counts a token that was drawn, for the penalties of later steps. No other block reads the list any more.
__device__ __noinline__ inline void countToken(const SampleParams& p, int64_t slot, const Row& row, int32_t token) {
  Adjustment* list = p.adjustments + slot * p.maxAdjustments;
  const int place = row.placeOf(token), count = row.numAdjustments;
  const bool known = place < count && list[place].id == token;
  __syncthreads();  // nor does another thread
  if (!known && count == p.maxAdjustments) return;
  if (!known) {
    for (int end = count; end > place; end -= kThreads) {  // makes room, from the end on
      const int i = end - 1 - static_cast<int>(threadIdx.x);
      Adjustment moved;
      if (i >= place) moved = list[i];
      __syncthreads();
      if (i >= place) list[i + 1] = moved;
      __syncthreads();
    }
  }
  if (threadIdx.x != 0) return;
  if (known) {
    ++list[place].count;
  } else {
    list[place] = {token, 1, 0};
    p.numAdjustments[slot] = count + 1;
  }
}

/// What a row without a token leaves.
__device__ inline void leaveNothing(const SampleParams& p, int64_t i) {
  if (threadIdx.x == 0) p.tokens[i] = -1;
  if (!p.logprob) return;
  listNothing(p, i);
  if (threadIdx.x == 0) p.logprob[i] = 0;
}

/// Log-probabilities of the token and of as many alternatives as the slot asks for.
__device__ __noinline__ inline void leaveLogprobs(const SampleParams& p, int64_t i, int32_t token, SampleShared& s) {
  const Row& row = s.row;
  const double asked = row.field[numLogprobs];
  float logprob = 0;
  if (asked >= 0) {
    const double logSum = blockLogSumExp(row.logits, row.vocabulary, s.logSum);
    logprob = logprobOnDevice(row.logits[token], logSum);
    listLogprobs(p, i, asked, logSum, s);
  } else {
    listNothing(p, i);
  }
  if (threadIdx.x == 0) p.logprob[i] = logprob;
}

/// What follows from the token (−1: none was to be had) of row r, the i-th of those that are drawn from. Nobody asks any more whether the row
/// is drawn from: all threads, and all blocks that share the row, know.
__device__ __noinline__ inline void leaveToken(const SampleParams& p, int64_t r, int64_t i, int32_t token, SampleShared& s) {
  const Row& row = s.row;
  const int64_t slot = p.logitSlot[r];
  if (token < 0) token = lowestAllowed(row);
  if (p.logprob) leaveLogprobs(p, i, token, s);
  if (row.penalised && !p.draft) countToken(p, slot, row, token);
  if (threadIdx.x != 0) return;
  p.tokens[i] = token;
  const auto position = static_cast<int32_t>(row.position);
  if (position < p.historyStride) p.history[slot * p.historyStride + position] = token;
  if (p.lengths && !p.draft) p.lengths[slot] = position;
}

}  // namespace longcat::cuda
