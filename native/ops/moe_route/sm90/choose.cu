// Choice on Hopper, a team of warps a row (team.cuh), and the plan in the same launch, if there is to be one:
//  - of one row it is the choice itself;
//  - few rows are chosen for by one cluster of blocks. A block keeps in shared memory which of its rows chose an expert, a bit each; with the counts
//    of all blocks every block knows where the plan entries of its own rows are;
//  - more are chosen for by the whole card, and the block that is last plans (plan.cuh).
// Beyond kMostAtOnce rows the plan is a launch of its own.
#include "cuda/dependent.cuh"
#include "cuda/hopper/cluster.cuh"
#include "cuda/launch.cuh"
#include "ops/moe_route/plan.cuh"
#include "ops/moe_route/sm90/route.h"
#include "ops/moe_route/sm90/team.cuh"
#include "ops/moe_route/turn.cuh"

namespace longcat::cuda {
namespace {

using namespace router;

constexpr int kBlocks = 8;                      // of the cluster
constexpr int kMostTeams = 4, kLeastTeams = 2;  // of its blocks
constexpr int64_t kMostInCluster = kBlocks * kMostTeams;  // rows: a team each
constexpr int kMostExperts = 4 * kLeastTeams * kTeam;
constexpr int64_t kMostOutputs = 768;
constexpr int kManyTeams = 2, kManyBlocks = 4, kPlanBlocks = 3;  // where the whole card chooses: teams of a block, blocks of a multiprocessor
constexpr int64_t kMostAtOnce = 256;            // rows that the last of these blocks plans

__device__ __forceinline__ uint4 countsOf(const uint4& words) {
  return make_uint4(__popc(words.x), __popc(words.y), __popc(words.z), __popc(words.w));
}
__device__ __forceinline__ void operator+=(uint4& a, const uint4& b) { a.x += b.x, a.y += b.y, a.z += b.z, a.w += b.w; }
/// How many came before each of four.
__device__ __forceinline__ uint4 startsOf(uint32_t first, const uint4& counts) {
  return make_uint4(first, first + counts.x, first + counts.x + counts.y, first + counts.x + counts.y + counts.z);
}

/// The plan of a block's rows, a team each, from all blocks' choices.
struct ClusterPlan {
  uint4 chosen[kMostExperts / 4];             // of an expert: bit i: the block's row i chose it
  uint4 next[kMostExperts / 4];               // the first plan entry of the block's rows
  uint16_t ids[kMostTeams * kMostCandidates]; // of the block's rows, as they are in p.ids
  int32_t ofWarps[32];

  /// All threads; then a barrier.
  __device__ __forceinline__ void clear() {
    for (int i = threadIdx.x; i < kMostExperts / 4; i += static_cast<int>(blockDim.x)) chosen[i] = {};
  }
  /// Slot `slot` of the block's row `row` has chosen `id`.
  __device__ __forceinline__ void record(const MoeRouteParams& p, int row, int slot, int id) {
    ids[row * static_cast<int>(p.topK) + slot] = static_cast<uint16_t>(id);
    if (id < p.experts) atomicOr(&memberOf(chosen, id), 1u << row);
  }

  /// Everything recorded: writes the plan of rows first … first + own - 1. All threads of all blocks of the cluster.
  __device__ __forceinline__ void write(const MoeRouteParams& p, int first, int own) {
    syncCluster();
    startExperts(p);
    arriveAtCluster();  // has read the others' choices
    const int topK = static_cast<int>(p.topK);
    for (int i = threadIdx.x; i < own * topK; i += static_cast<int>(blockDim.x)) {
      const int id = ids[i], row = i / topK;
      if (id >= p.experts) continue;
      const uint32_t entry = memberOf(next, id) + __popc(memberOf(chosen, id) & ((1u << row) - 1));
      p.slotPlan[static_cast<int64_t>(first) * topK + i] = static_cast<int32_t>(entry);
      p.planRow[entry] = first + row;
    }
    waitForCluster();
  }

 private:
  /// expertStart and `next`: a thread has four experts.
  __device__ __forceinline__ void startExperts(const MoeRouteParams& p) {
    const uint32_t rank = clusterRank();
    const int thread = static_cast<int>(threadIdx.x), experts = static_cast<int>(p.experts);
    const bool has = thread < kMostExperts / 4;
    uint4 all = {}, before = {};
    if (has) {
#pragma unroll
      for (uint32_t b = 0; b < kBlocks; ++b) {
        const uint4 rows = countsOf(loadOfBlock(&chosen[thread], b));
        all += rows;
        if (b < rank) before += rows;
      }
    }
    const auto total = static_cast<int32_t>(all.x + all.y + all.z + all.w);
    const int32_t start = blockInclusiveSum(total, ofWarps) - total;
    if (has) {
      const uint4 starts = startsOf(start, all);
      uint4 own = starts;
      own += before;
      next[thread] = own;
      if (rank == 0) forMembers(starts, 4 * thread, [&](uint32_t at, int e) {
        if (e <= experts) p.expertStart[e] = static_cast<int32_t>(at);
      });
    }
    __syncthreads();
  }
};

/// A block's share of the rows, as the cluster shares out the capacity.
struct Share {
  int first, size;
  __device__ __forceinline__ explicit Share(const MoeRouteParams& p) {
    const int capacity = static_cast<int>(p.capacity), blocks = static_cast<int>(clusterSize());
    size = (capacity + blocks - 1) / blocks, first = static_cast<int>(clusterRank()) * size;
  }
  /// How many of them are live; after awaitPrevious().
  __device__ __forceinline__ int live(const MoeRouteParams& p) const { return max(0, min(size, static_cast<int>(liveRows(p.rows, p.capacity)) - first)); }
};

/// One row: its choices are in the order of experts already.
template <int kPerThread>
__global__ void __launch_bounds__(kTeam, 1) chooseOne(const __grid_constant__ MoeRouteParams p) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  __shared__ TeamShared shared;
  __shared__ int4 ids[kMostCandidates / 4];
  letNextBegin();
  Team<kPerThread> mine(p, shared);
  const int experts = static_cast<int>(p.experts);
  if (threadIdx.x < kMostCandidates) memberOf(ids, threadIdx.x) = experts;
  __syncthreads();
  awaitPrevious();
  mine.load(0);
  if (liveRows(p.rows, p.capacity) > 0) {
    mine.choose([&](int slot, int id) {
      memberOf(ids, slot) = id;
      if (id >= experts) return;
      p.slotPlan[slot] = slot;
      p.planRow[slot] = 0;
    });
  }
  __syncthreads();
  for (int e = threadIdx.x; e <= experts; e += kTeam) {
    int lower = 0;
    for (int slot = 0; slot < p.topK; slot += 4) forMembers(ids[slot / 4], slot, [&](int id, int) { lower += id < e; });
    p.expertStart[e] = lower;
  }
#endif
}

template <int kPerThread>
__global__ void __launch_bounds__(kMostTeams* kTeam, 1) chooseInCluster(const __grid_constant__ MoeRouteParams p) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  __shared__ ClusterPlan plan;
  __shared__ TeamShared shared[kMostTeams];
  letNextBegin();
  plan.clear();
  const int team = static_cast<int>(threadIdx.x) / kTeam;  // a row each
  Team<kPerThread> mine(p, shared[team]);
  __syncthreads();
  const Share share(p);
  awaitPrevious();
  if (share.first + team < p.capacity) mine.load(share.first + team);  // whether or not it is live: to wait for the count first would take as long again
  const int own = share.live(p);
  if (team < own) mine.choose([&](int slot, int id) { plan.record(p, team, slot, id); });
  plan.write(p, share.first, own);
#endif
}

template <int kPerThread>
__global__ void __launch_bounds__(kManyTeams* kTeam, kPlanBlocks) chooseAndPlan(const __grid_constant__ MoeRouteParams p) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  __shared__ TeamShared shared[kManyTeams];
  __shared__ PlanShared plan;
  letNextBegin();
  const int team = static_cast<int>(threadIdx.x) / kTeam;
  Team<kPerThread> mine(p, shared[team]);
  int row = static_cast<int>(blockIdx.x) * kManyTeams + team;
  awaitPrevious();
  if (row < p.capacity) mine.load(row);  // as above; where multiprocessors are few, more follow
  const int rows = static_cast<int>(liveRows(p.rows, p.capacity));
  while (row < rows) {
    mine.choose([](int, int) {});
    row += static_cast<int>(gridDim.x) * kManyTeams;
    if (row < rows) mine.load(row);
  }
  if (choseLast(p)) ExpertPlan<kManyTeams * kTeam>(p, rows, plan).make(0, static_cast<int>(p.experts));
#endif
}

template <int kPerThread>
__global__ void __launch_bounds__(kManyTeams* kTeam, kManyBlocks) chooseByTeams(const __grid_constant__ MoeRouteParams p) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  __shared__ TeamShared shared[kManyTeams];
  letNextBegin();
  const int team = static_cast<int>(threadIdx.x) / kTeam;
  Team<kPerThread> mine(p, shared[team]);
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kManyTeams + team;
  awaitPrevious();
  const int64_t rows = liveRows(p.rows, p.capacity);
  for (int64_t r = first; r < rows; r += static_cast<int64_t>(gridDim.x) * kManyTeams) {
    mine.load(r);
    mine.choose([](int, int) {});
  }
#endif
}

template <int kPerThread>
bool launchChoice(const CudaContext& context, const MoeRouteParams& p) {
  const int64_t pairs = ceilDiv(p.capacity, kManyTeams);
  const bool lastPlans = p.capacity <= kMostAtOnce && inOnePass(p) && logitsOnTensorCores(context, p);
  if (!p.expertStart || (p.capacity > kMostInCluster && !lastPlans)) {
    launch(context, chooseByTeams<kPerThread>, persistentGrid(context, pairs, kManyBlocks), kManyTeams * kTeam, 0, p);
    return !p.expertStart;
  }
  if (p.capacity == 1) {
    launch(context, chooseOne<kPerThread>, 1, kTeam, 0, p);
  } else if (p.capacity <= kMostInCluster) {
    const int teams = static_cast<int>(std::clamp<int64_t>(ceilDiv(p.capacity, kBlocks), kLeastTeams, kMostTeams));
    launch(context, chooseInCluster<kPerThread>, LaunchShape{dim3(kBlocks), teams * kTeam, 0, kBlocks}, p);
  } else {
    launch(context, chooseAndPlan<kPerThread>, persistentGrid(context, pairs, kPlanBlocks), kManyTeams * kTeam, 0, p);
  }
  return true;
}

}  // namespace

bool choosesByTeams(const CudaContext& context, const MoeRouteParams& p) {
  return context.capability == 90 && p.classifier.rows > kTinyOutputs && p.experts < kMostExperts && p.topK <= kMostCandidates && p.classifier.rows <= kMostOutputs;
}

bool launchTeamChoice(const CudaContext& context, const MoeRouteParams& p) {
  if (p.classifier.rows <= 3 * kTeam) return launchChoice<3>(context, p);
  return launchChoice<6>(context, p);
}

}  // namespace longcat::cuda
