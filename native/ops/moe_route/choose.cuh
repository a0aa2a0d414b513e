// Softmax over all experts and the choice of the K best, a warp a row. A lane has the ids lane, lane + 32, …
#pragma once

#include <cmath>

#include "cuda/reduce.cuh"
#include "cuda/vectors.cuh"
#include "ops/moe_route/params.h"

namespace longcat::cuda {

/// Whole numbers in the order of floats, NaN the least (as −∞), −0 as 0. No float's is 0.
__device__ __forceinline__ uint32_t rankOf(float score) {
  if (!(score >= -INFINITY)) score = -INFINITY;
  const uint32_t bits = __float_as_uint(score == 0.0f ? 0.0f : score);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float floatOfRank(uint32_t rank) { return __uint_as_float(rank & 0x80000000u ? rank & 0x7fffffffu : ~rank); }

/// The K-th best of all: greater rank first, then the lower id. Whoever is not after it is chosen.
struct Place {
  uint32_t rank;
  int id;
  __device__ __forceinline__ bool before(uint32_t otherRank, int otherId) const { return otherRank < rank || (otherRank == rank && otherId > id); }
};

/// Shared memory of a warp that chooses.
struct ChoiceShared {
  uint64_t candidates[32];
  uint4 most[8];  // a rank of each lane
};

/// What a lane has of a row, and of the bias, which is the same for all rows: in registers where a lane has at most kPerLane ids, or
/// (kPerLane = 0: any number of them) in memory, to be read again each time. Registers beyond the last id hold what is never chosen and
/// adds nothing: a logit of −∞, then the rank 0.
template <int kPerLane>
class LaneScores {
 public:
  __device__ __forceinline__ explicit LaneScores(const MoeRouteParams& p)
      : p_(p), all_(static_cast<int>(p.classifier.rows)), lane_(static_cast<int>(threadIdx.x) & 31) {
    if constexpr (kPerLane > 0) forIds([&](int j, int id) { bias_[j] = id < all_ ? biasAt(id) : 0.0f; });
  }
  __device__ __forceinline__ int lane() const { return lane_; }

  __device__ __forceinline__ void load(int64_t row) {
    scores_ = p_.scores + row * all_;
    if constexpr (kPerLane > 0) forIds([&](int j, int id) { value_[j] = id < all_ ? scores_[id] : -INFINITY; });
  }
  /// number = f(number) for each id, ascending.
  template <class F>
  __device__ __forceinline__ void update(const F& f) {
    forIds([&](int j, int id) {
      float& v = kPerLane > 0 ? value_[j] : scores_[id];
      v = f(v);
    });
  }
  /// Probabilities to memory, and the ranks of probability + bias to registers, where those are.
  __device__ __forceinline__ void rank() {
    if constexpr (kPerLane > 0) {
      forIds([&](int j, int id) {
        if (id < all_) scores_[id] = value_[j];
        rank_[j] = id < all_ ? rankOf(__fadd_rn(value_[j], bias_[j])) : 0;
      });
    }
  }
  /// f(id, rank) for each id, ascending.
  template <class F>
  __device__ __forceinline__ void visit(const F& f) const {
    forIds([&](int j, int id) { f(id, kPerLane > 0 ? rank_[j] : rankAt(id)); });
  }
  /// f(id, probability, rank) by the whole warp for 32 ids at a time, lane l's is `id`; rank 0: there is none.
  template <class F>
  __device__ __forceinline__ void visitTogether(const F& f) const {
    if constexpr (kPerLane > 0) {
      forIds([&](int j, int id) { f(id, value_[j], rank_[j]); });
    } else {
      for (int id = lane_; id - lane_ < all_; id += 32) f(id, id < all_ ? scores_[id] : 0.0f, id < all_ ? rankAt(id) : 0u);
    }
  }

 private:
  template <class F>
  __device__ __forceinline__ void forIds(const F& f) const {
    if constexpr (kPerLane > 0) {
#pragma unroll
      for (int j = 0; j < kPerLane; ++j) f(j, lane_ + 32 * j);
    } else {
      for (int id = lane_; id < all_; id += 32) f(0, id);
    }
  }
  __device__ __forceinline__ float biasAt(int id) const { return loadNumber(p_.bias.data, p_.bias.dtype, id); }
  __device__ __forceinline__ uint32_t rankAt(int id) const { return rankOf(__fadd_rn(scores_[id], biasAt(id))); }

  static constexpr int kKept = kPerLane > 0 ? kPerLane : 1;
  const MoeRouteParams& p_;
  int all_, lane_;
  float* scores_ = nullptr;  // of the row: logits, then probabilities
  float value_[kKept], bias_[kKept];
  uint32_t rank_[kKept];
};

/// Logits to probabilities.
template <int kPerLane>
__device__ __forceinline__ void softmax(LaneScores<kPerLane>& mine) {
  uint32_t most = 0;
  mine.update([&](float v) {
    most = max(most, rankOf(v));
    return v;
  });
  const float greatest = floatOfRank(__reduce_max_sync(kAllLanes, most));
  float total = 0;
  mine.update([&](float v) {
    const float e = expf(v - greatest);
    total = __fadd_rn(total, e);  // not fused with what exp ends in
    return e;
  });
  const float share = 1.0f / warpSum(total);
  mine.update([&](float v) { return v * share; });
}

/// One round for each choice: the best of those after the last one.
template <int kPerLane>
__device__ __forceinline__ Place lastOfRounds(const LaneScores<kPerLane>& mine, int topK) {
  Place last{0xffffffffu, 0x7fffffff};  // before all: no float ranks as high
  for (int k = 0; k < topK; ++k) {
    uint32_t rank = 0;
    int id = 0x7fffffff;
    mine.visit([&](int i, uint32_t r) {
      if (last.before(r, i) && r > rank) rank = r, id = i;
    });
    const uint32_t best = __reduce_max_sync(kAllLanes, rank);
    id = static_cast<int>(__reduce_min_sync(kAllLanes, rank == best ? static_cast<unsigned>(id) : 0x7fffffffu));
    last = {best, id};
  }
  return last;
}

/// The same without rounds, where few come into question: the K greatest of the lanes' maxima are K numbers, so that the K best are among
/// the numbers that are no less than the least of these. False: they are more than the warp has lanes.
template <int kPerLane>
__device__ __forceinline__ bool lastOfCandidates(const LaneScores<kPerLane>& mine, int topK, ChoiceShared& shared, Place& last) {
  const int lane = mine.lane();
  uint32_t most = 0;
  mine.visit([&](int, uint32_t rank) { most = max(most, rank); });
  __syncwarp();  // what the row before left there has been read
  reinterpret_cast<uint32_t*>(shared.most)[lane] = most;
  __syncwarp();
  int greater = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const uint4 other = shared.most[i];
    greater += (other.x > most) + (other.y > most) + (other.z > most) + (other.w > most);
  }
  const uint32_t least = __reduce_min_sync(kAllLanes, greater < topK ? most : 0xffffffffu);

  int count = 0;
  mine.visit([&](int, uint32_t rank) { count += rank >= least; });
  int before = 0, total = 0;  // candidates of the lanes below, and of all
#pragma unroll
  for (int bit = 0; bit < 6; ++bit) {
    const unsigned lanes = __ballot_sync(kAllLanes, (count >> bit) & 1);
    before += __popc(lanes & ((1u << lane) - 1)) << bit;
    total += __popc(lanes) << bit;
  }
  if (total > 32 || total < topK) return false;  // (fewer: more than 32 are to be chosen)
  mine.visit([&](int id, uint32_t rank) {
    if (rank >= least) shared.candidates[before++] = static_cast<uint64_t>(rank) << 32 | static_cast<uint32_t>(~id);
  });
  __syncwarp();
  const uint64_t own = shared.candidates[lane < total ? lane : 0];
  int better = 0;
  for (int i = 0; i < total; ++i) better += shared.candidates[i] > own;
  const int owner = __ffs(static_cast<int>(__ballot_sync(kAllLanes, lane < total && better == topK - 1))) - 1;
  const uint64_t found = __shfl_sync(kAllLanes, own, owner);
  last = {static_cast<uint32_t>(found >> 32), static_cast<int>(~static_cast<uint32_t>(found))};
  return true;
}

/// Writes the row's choice in ascending ids, with weights; zero experts get no plan entry, and their weights add up.
/// record(slot of the row, id) is called for each choice.
template <int kPerLane, class Record>
__device__ __forceinline__ void writeChoice(const MoeRouteParams& p, int64_t row, const Place& last, const LaneScores<kPerLane>& mine, const Record& record) {
  const int experts = static_cast<int>(p.experts), lane = mine.lane();
  const int64_t first = row * p.topK;
  int count = 0, ffn = 0;
  float identity = 0;
  mine.visitTogether([&](int id, float probability, uint32_t rank) {
    const bool chosen = !last.before(rank, id);
    const unsigned lanes = __ballot_sync(kAllLanes, chosen);
    if (lanes == 0) return;
    const float weight = chosen ? probability * p.factor : 0.0f;
    const unsigned zero = __ballot_sync(kAllLanes, chosen && id >= experts);
    if (chosen) {
      const int slot = count + __popc(lanes & ((1u << lane) - 1));
      p.ids[first + slot] = id;
      p.weights[first + slot] = weight;
      if (id >= experts && p.slotPlan) p.slotPlan[first + slot] = -1;
      record(slot, id);
    }
    for (unsigned left = zero; left != 0; left &= left - 1) identity += __shfl_sync(kAllLanes, weight, __ffs(static_cast<int>(left)) - 1);
    count += __popc(lanes);
    ffn += __popc(lanes) - __popc(zero);
  });
  if (lane == 0) {
    p.identityWeight[row] = identity;
    p.ffnCount[row] = ffn;
  }
}

/// Row `row` from logits in `scores` to its choice. The whole warp calls.
template <int kPerLane, class Record>
__device__ __forceinline__ void chooseOfRow(const MoeRouteParams& p, int64_t row, LaneScores<kPerLane>& mine, ChoiceShared& shared, const Record& record) {
  mine.load(row);
  softmax(mine);
  mine.rank();
  const int topK = static_cast<int>(p.topK);
  Place last;
  if (kPerLane == 0 || !lastOfCandidates(mine, topK, shared, last)) last = lastOfRounds(mine, topK);
  writeChoice(p, row, last, mine, record);
}
template <int kPerLane>
__device__ __forceinline__ void chooseOfRow(const MoeRouteParams& p, int64_t row, LaneScores<kPerLane>& mine, ChoiceShared& shared) {
  chooseOfRow(p, row, mine, shared, [](int, int) {});
}

}  // namespace longcat::cuda
