// Softmax over all experts and the choice of the K best, a warp a row. A lane has the ids lane, lane + 32, …
#pragma once

#include <cmath>

#include "cuda/reduce.cuh"
#include "cuda/vectors.cuh"
#include "ops/moe_route/params.h"

namespace longcat::cuda {

/// The numbers of a row that a lane has: in registers where there are at most kPerLane, or (kPerLane = 0, any number) in `scores`.
template <int kPerLane>
struct LaneScores {
  float* scores;  // of the row: logits, then probabilities
  int all, lane;
  float kept[kPerLane ? kPerLane : 1];

  /// f(id, number) for each id of this lane, ascending; a returned number takes its place.
  template <class F>
  __device__ __forceinline__ void update(const F& f) {
    if constexpr (kPerLane > 0) {
#pragma unroll
      for (int j = 0; j < kPerLane; ++j) {
        if (lane + 32 * j < all) kept[j] = f(lane + 32 * j, kept[j]);
      }
    } else {
      for (int id = lane; id < all; id += 32) scores[id] = f(id, scores[id]);
    }
  }
  template <class F>
  __device__ __forceinline__ void visit(const F& f) const {
    if constexpr (kPerLane > 0) {
#pragma unroll
      for (int j = 0; j < kPerLane; ++j) {
        if (lane + 32 * j < all) f(lane + 32 * j, kept[j]);
      }
    } else {
      for (int id = lane; id < all; id += 32) f(id, scores[id]);
    }
  }
  /// kept numbers from and to memory; nothing where they live there.
  __device__ __forceinline__ void load() {
    if constexpr (kPerLane > 0) update([&](int id, float) { return scores[id]; });
  }
  __device__ __forceinline__ void store() {
    if constexpr (kPerLane > 0) visit([&](int id, float v) { scores[id] = v; });
  }
};

/// Whole numbers in the order of floats, NaN the least (as −∞), −0 as 0.
__device__ __forceinline__ uint32_t rankOf(float score) {
  if (!(score >= -INFINITY)) score = -INFINITY;
  const uint32_t bits = __float_as_uint(score == 0.0f ? 0.0f : score);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

/// The K-th best of all: greater rank first, then the lower id. Whoever is not after it is chosen.
struct Place {
  uint32_t rank;
  int id;
  __device__ __forceinline__ bool before(uint32_t otherRank, int otherId) const { return otherRank < rank || (otherRank == rank && otherId > id); }
};

template <int kPerLane>
__device__ __forceinline__ void softmax(LaneScores<kPerLane>& mine) {
  float most = -INFINITY;
  mine.visit([&](int, float v) { most = v > most ? v : most; });
  most = warpMax(most);
  float total = 0;
  mine.update([&](int, float v) {
    const float e = expf(v - most);
    total = __fadd_rn(total, e);  // not fused with what exp ends in
    return e;
  });
  total = warpSum(total);
  mine.update([&](int, float v) { return v / total; });
}

/// One round for each choice: the best of those after the last one. `rankAt(id, number)` is what they are ordered by.
template <int kPerLane, class Rank>
__device__ __forceinline__ Place lastChosen(const LaneScores<kPerLane>& mine, int64_t topK, const Rank& rankAt) {
  Place last{0xffffffffu, 0x7fffffff};  // before all: no float ranks as high
  for (int64_t k = 0; k < topK; ++k) {
    uint32_t rank = 0;  // less than any float's
    int id = 0x7fffffff;
    mine.visit([&](int i, float v) {
      const uint32_t r = rankAt(i, v);
      if (last.before(r, i) && r > rank) rank = r, id = i;
    });
    const uint32_t best = __reduce_max_sync(kAllLanes, rank);
    id = static_cast<int>(__reduce_min_sync(kAllLanes, rank == best ? static_cast<unsigned>(id) : 0x7fffffffu));
    last = {best, id};
  }
  return last;
}

/// Writes the row's choice in ascending ids, with weights; zero experts get no plan entry, and their weights add up.
template <int kPerLane>
__device__ __forceinline__ void writeChoice(const MoeRouteParams& p, int64_t row, int lane, const float* probabilities, const Place& last,
                                            const LaneScores<kPerLane>& ranks) {
  const int all = static_cast<int>(p.classifier.rows), experts = static_cast<int>(p.experts);
  const int64_t first = row * p.topK;
  int count = 0, ffn = 0;
  float identity = 0;
  const auto place = [&](int id, bool chosen) {  // 32 ids at once, one a lane
    const unsigned lanes = __ballot_sync(kAllLanes, chosen);
    if (lanes == 0) return;
    const float weight = chosen ? probabilities[id] * p.factor : 0.0f;
    const unsigned zero = __ballot_sync(kAllLanes, chosen && id >= experts);
    if (chosen) {
      const int64_t slot = first + count + __popc(lanes & ((1u << lane) - 1));
      p.ids[slot] = id;
      p.weights[slot] = weight;
      if (id >= experts) p.slotPlan[slot] = -1;
    }
    for (unsigned left = zero; left != 0; left &= left - 1) identity += __shfl_sync(kAllLanes, weight, __ffs(static_cast<int>(left)) - 1);
    count += __popc(lanes);
    ffn += __popc(lanes) - __popc(zero);
  };
  const auto isChosen = [&](int id, uint32_t rank) { return id < all && !last.before(rank, id); };
  if constexpr (kPerLane > 0) {
#pragma unroll
    for (int j = 0; j < kPerLane; ++j) place(lane + 32 * j, isChosen(lane + 32 * j, __float_as_uint(ranks.kept[j])));
  } else {
    for (int id = lane; id - lane < all; id += 32) {
      const uint32_t rank = id < all ? rankOf(__fadd_rn(probabilities[id], loadNumber(p.bias.data, p.bias.dtype, id))) : 0;
      place(id, isChosen(id, rank));
    }
  }
  if (lane == 0) {
    p.identityWeight[row] = identity;
    p.ffnCount[row] = ffn;
  }
}

/// Row r from logits in `scores` to its choice. The whole warp calls.
template <int kPerLane>
__device__ __forceinline__ void chooseOfRow(const MoeRouteParams& p, int64_t r) {
  const int lane = static_cast<int>(threadIdx.x) & 31;
  float* scores = p.scores + r * p.classifier.rows;
  LaneScores<kPerLane> mine{scores, static_cast<int>(p.classifier.rows), lane, {}};
  mine.load();
  softmax(mine);
  mine.store();
  const auto rankAt = [&](int id, float probability) { return rankOf(__fadd_rn(probability, loadNumber(p.bias.data, p.bias.dtype, id))); };
  if constexpr (kPerLane > 0) {
    // The registers hold ranks from here on; each lane finds its probabilities where it wrote them.
    mine.update([&](int id, float v) { return __uint_as_float(rankAt(id, v)); });
    const Place last = lastChosen(mine, p.topK, [](int, float v) { return __float_as_uint(v); });
    writeChoice(p, r, lane, scores, last, mine);
  } else {
    writeChoice(p, r, lane, scores, lastChosen(mine, p.topK, rankAt), mine);
  }
}

}  // namespace longcat::cuda
