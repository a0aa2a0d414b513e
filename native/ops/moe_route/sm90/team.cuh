// Softmax over all experts and the choice of the K best by a team of four warps a row. A thread has the ids t, t + kTeam, … of a row, and the
// bias of each, in registers.
//
// Softmax: a thread adds its ids in ascending order, then a butterfly over the lanes of a warp, then the warps in ascending order.
#pragma once

#include "cuda/hopper/barrier.cuh"
#include "ops/moe_route/choose.cuh"

namespace longcat::cuda::router {

constexpr int kTeam = 128, kTeamWarps = kTeam / 32;
constexpr int kMostCandidates = 32;  // and choices: a lane each

struct TeamShared {
  uint4 most;   // a rank of each warp
  float4 sums;  // of each warp
  uint4 best[2];                               // a rank and a ~id of each warp
  uint4 quads[kMostCandidates / 4];            // the greatest rank of each four threads
  uint4 ranks[kMostCandidates / 4], notIds[kMostCandidates / 4];  // candidates; rank 0: none
  float probabilities[kMostCandidates];        // of them
  float4 identity[kMostCandidates / 4];        // weights by slot; 0: not a zero expert's
  int count;
};

/// A number of the n-th member of four.
template <class Four>
__device__ __forceinline__ auto& memberOf(Four* fours, int n) { return reinterpret_cast<decltype(Four::x)*>(fours)[n]; }

/// f(member, i + 0 … 3) for the members of a four.
template <class Four, class F>
__device__ __forceinline__ void forMembers(const Four& four, int i, const F& f) {
  f(four.x, i), f(four.y, i + 1), f(four.z, i + 2), f(four.w, i + 3);
}

template <int kPerThread>
class Team {
 public:
  __device__ __forceinline__ Team(const MoeRouteParams& p, TeamShared& shared)
      : p_(p), s_(shared), all_(static_cast<int>(p.classifier.rows)), topK_(static_cast<int>(p.topK)), thread_(static_cast<int>(threadIdx.x) % kTeam) {
    forIds([&](int j, int id) { bias_[j] = loadNumber(p.bias.data, p.bias.dtype, id); });
  }

  /// A row's logits, which stay where they are.
  __device__ __forceinline__ void load(int64_t row) {
    row_ = row;
    forIds([&](int j, int id) { value_[j] = p_.scores[row * all_ + id]; });
  }
  /// The loaded row's probabilities, choice and weights to memory. record(slot of the row, id) is called for each choice.
  template <class Record>
  __device__ __forceinline__ void choose(const Record& record) {
    softmax();
    rank();
    sync();
    collectCandidates();
    sync();
    int candidates = s_.count;
    if (candidates > kMostCandidates) {
      chooseByRounds();
      candidates = topK_;
    }
    if (warp() == 0) writeChoice(candidates, record);
  }

 private:
  /// f(j, id) for the thread's ids, ascending.
  template <class F>
  __device__ __forceinline__ void forIds(const F& f) const {
#pragma unroll
    for (int j = 0; j < kPerThread; ++j) {
      if (const int id = thread_ + j * kTeam; id < all_) f(j, id);
    }
  }
  __device__ __forceinline__ int lane() const { return thread_ & 31; }
  __device__ __forceinline__ int warp() const { return thread_ >> 5; }
  /// A barrier of the team.
  __device__ __forceinline__ void sync() const { syncSome(1 + static_cast<int>(threadIdx.x) / kTeam, kTeam); }

  /// Logits to probabilities.
  __device__ __forceinline__ void softmax() {
    uint32_t most = 0;
    forIds([&](int j, int) { most = max(most, rankOf(value_[j])); });
    most = __reduce_max_sync(kAllLanes, most);
    if (lane() == 0) memberOf(&s_.most, warp()) = most;
    sync();
    const uint4 ofWarps = s_.most;
    const float greatest = floatOfRank(max(max(ofWarps.x, ofWarps.y), max(ofWarps.z, ofWarps.w)));
    float total = 0;
    forIds([&](int j, int) {
      value_[j] = expf(value_[j] - greatest);
      total = __fadd_rn(total, value_[j]);  // not fused with what exp ends in
    });
    total = warpSum(total);
    if (lane() == 0) memberOf(&s_.sums, warp()) = total;
    sync();
    const float4 sums = s_.sums;
    const float share = 1.0f / (sums.x + sums.y + sums.z + sums.w);
    forIds([&](int j, int) { value_[j] *= share; });
  }

  /// Probabilities to memory; the ranks of probability + bias, and the greatest of them of each four threads. No candidates yet.
  __device__ __forceinline__ void rank() {
    uint32_t most = 0;
    forIds([&](int j, int id) {
      p_.scores[row_ * all_ + id] = value_[j];
      rank_[j] = rankOf(__fadd_rn(value_[j], bias_[j]));
      most = max(most, rank_[j]);
    });
    most = max(most, __shfl_xor_sync(kAllLanes, most, 1));
    most = max(most, __shfl_xor_sync(kAllLanes, most, 2));
    if (thread_ % 4 == 0) memberOf(s_.quads, thread_ / 4) = most;
    if (thread_ < kMostCandidates) memberOf(s_.ranks, thread_) = 0;
    if (thread_ == 0) s_.count = 0;
  }

  /// The K greatest of the quads' maxima are K numbers, so that the K best are among the numbers that are no less than the least of these: some
  /// fifteen as a rule. In which order they are kept does not matter.
  __device__ __forceinline__ void collectCandidates() {
    const uint32_t own = memberOf(s_.quads, lane());
    int greater = 0;
#pragma unroll
    for (int i = 0; i < kMostCandidates; i += 4) forMembers(s_.quads[i / 4], i, [&](uint32_t other, int) { greater += other > own; });
    const uint32_t least = max(1u, __reduce_min_sync(kAllLanes, greater < topK_ ? own : 0xffffffffu));  // 0: threads without ids
    int count = 0;
    forIds([&](int j, int) { count += rank_[j] >= least; });
    int place = count > 0 ? atomicAdd(&s_.count, count) : 0;
    forIds([&](int j, int id) {
      if (rank_[j] >= least) keepCandidate(place++, id, j);
    });
  }
  __device__ __forceinline__ void keepCandidate(int place, int id, int j) {
    if (place >= kMostCandidates) return;
    memberOf(s_.ranks, place) = rank_[j];
    memberOf(s_.notIds, place) = ~static_cast<uint32_t>(id);
    s_.probabilities[place] = value_[j];
  }

  /// Many that are alike: one round for each choice, the best of those after the last one.
  __device__ __forceinline__ void chooseByRounds() {
    uint32_t lastRank = 0xffffffffu, lastNotId = 0xffffffffu;  // before all: no float ranks as high
    for (int k = 0; k < topK_; ++k) {
      uint32_t rank = 0, notId = 0;
      forIds([&](int j, int id) {
        const uint32_t other = ~static_cast<uint32_t>(id);
        if ((rank_[j] < lastRank || (rank_[j] == lastRank && other < lastNotId)) && rank_[j] > rank) rank = rank_[j], notId = other;
      });
      const uint32_t best = __reduce_max_sync(kAllLanes, rank);
      notId = __reduce_max_sync(kAllLanes, rank == best ? notId : 0);
      if (lane() == 0) memberOf(s_.best, warp()) = best, memberOf(s_.best, kTeamWarps + warp()) = notId;
      sync();
      lastRank = lastNotId = 0;
      for (int w = 0; w < kTeamWarps; ++w) {
        const uint32_t r = memberOf(s_.best, w), n = memberOf(s_.best, kTeamWarps + w);
        if (r > lastRank || (r == lastRank && n > lastNotId)) lastRank = r, lastNotId = n;
      }
      forIds([&](int j, int id) {
        if (~static_cast<uint32_t>(id) == lastNotId) keepCandidate(k, id, j);
      });
      sync();
    }
    for (int i = topK_ + thread_; i < kMostCandidates; i += kTeam) memberOf(s_.ranks, i) = 0;
    sync();
  }

  /// The K best of the candidates, a lane each, in ascending ids.
  template <class Record>
  __device__ __forceinline__ void writeChoice(int candidates, const Record& record) {
    const uint32_t rank = memberOf(s_.ranks, lane()), notId = rank > 0 ? memberOf(s_.notIds, lane()) : 0;
    int better = 0;
    for (int i = 0; i < candidates; i += 4) {
      const uint4 ranks = s_.ranks[i / 4], notIds = s_.notIds[i / 4];
      const auto count = [&](uint32_t r, uint32_t n) { better += r > rank || (r == rank && n > notId); };
      count(ranks.x, notIds.x), count(ranks.y, notIds.y), count(ranks.z, notIds.z), count(ranks.w, notIds.w);
    }
    const bool chosen = rank > 0 && better < topK_;
    const uint32_t all = __ballot_sync(kAllLanes, chosen);
    int slot = 0;
    for (int i = 0; i < candidates; i += 4) forMembers(s_.notIds[i / 4], i, [&](uint32_t other, int of) { slot += other > notId && (all >> of & 1); });
    const int id = static_cast<int>(~notId);
    const bool identity = chosen && id >= static_cast<int>(p_.experts);
    const float weight = chosen ? s_.probabilities[lane()] * p_.factor : 0.0f;
    const int64_t at = row_ * topK_ + slot;
    if (chosen) {
      p_.ids[at] = id;
      p_.weights[at] = weight;
      if (identity && p_.slotPlan) p_.slotPlan[at] = -1;
      memberOf(s_.identity, slot) = identity ? weight : 0.0f;
      record(slot, id);
    }
    const int ffn = topK_ - __popc(__ballot_sync(kAllLanes, identity));
    __syncwarp();
    if (lane() == 0) {
      float sum = 0;
      for (int i = 0; i < topK_; i += 4) forMembers(s_.identity[i / 4], i, [&](float w, int of) { sum += of < topK_ ? w : 0.0f; });
      p_.identityWeight[row_] = sum;
      p_.ffnCount[row_] = ffn;
    }
    __syncwarp();
  }

  const MoeRouteParams& p_;
  TeamShared& s_;
  int all_, topK_, thread_;
  int64_t row_ = 0;
  float value_[kPerThread], bias_[kPerThread];
  uint32_t rank_[kPerThread];
};

}  // namespace longcat::cuda::router
