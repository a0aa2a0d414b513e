// Choice on Hopper, a team of warps a row (team.cuh), and the plan of up to a thousand rows by one cluster of blocks: a block keeps in shared memory,
// for each expert, which of its rows chose it, a bit each; with the counts of all blocks every block knows where the plan entries of its own
// rows are. Few rows are chosen for by the cluster that plans them, in one launch; more are chosen for by the whole card first.
#include "cuda/dependent.cuh"
#include "cuda/hopper/cluster.cuh"
#include "cuda/launch.cuh"
#include "cuda/expert_plan.cuh"
#include "ops/moe_route/sm90/route.h"
#include "ops/moe_route/sm90/team.cuh"

namespace longcat::cuda {
namespace {

using namespace router;

constexpr int kBlocks = 8;                  // of the cluster
constexpr int kMostTeams = 8, kLeastTeams = 2;  // of a block that chooses and plans
constexpr int64_t kMostRows = kBlocks * kMostTeams;  // in one launch: a row each
constexpr int kPlanThreads = 512, kPlanWords = 4;
constexpr int64_t kMostPlanned = kBlocks * kPlanWords * 32;
constexpr int kMostExperts = 4 * kLeastTeams * kTeam;
constexpr int64_t kMostOutputs = 768;
constexpr int kManyTeams = 2, kManyBlocks = 4;  // where rows are more: teams of a block, blocks of a multiprocessor

__device__ __forceinline__ uint4 countsOf(const uint4& words) {
  return make_uint4(__popc(words.x), __popc(words.y), __popc(words.z), __popc(words.w));
}
__device__ __forceinline__ void operator+=(uint4& a, const uint4& b) { a.x += b.x, a.y += b.y, a.z += b.z, a.w += b.w; }
/// How many came before each of four.
__device__ __forceinline__ uint4 startsOf(uint32_t first, const uint4& counts) {
  return make_uint4(first, first + counts.x, first + counts.x + counts.y, first + counts.x + counts.y + counts.z);
}

/// The plan of a block's rows, at most 32 · kWords of them, from all blocks' choices.
template <int kWords>
struct ClusterPlan {
  uint4 chosen[kWords][kMostExperts / 4];  // of an expert: bit i of word w: the block's row 32 · w + i chose it
  uint4 counts[kMostExperts / 4];          // of the block's rows; one word says it itself
  uint4 next[kMostExperts / 4];            // the first plan entry of the block's rows
  uint16_t ids[32 * kWords * kMostCandidates];  // of the block's rows, as they are in p.ids
  int32_t ofWarps[kMostTeams * kTeamWarps];

  /// All threads; then a barrier.
  __device__ __forceinline__ void clear() {
    for (int i = threadIdx.x; i < kWords * kMostExperts / 4; i += static_cast<int>(blockDim.x)) chosen[0][i] = {};
  }
  /// Slot `slot` of the block's row `row` has chosen `id`.
  __device__ __forceinline__ void record(const MoeRouteParams& p, int row, int slot, int id) {
    ids[row * static_cast<int>(p.topK) + slot] = static_cast<uint16_t>(id);
    if (id < p.experts) atomicOr(&memberOf(chosen[row >> 5], id), 1u << (row & 31));
  }

  /// Everything recorded: writes the plan of rows first … first + own - 1. All threads of all blocks of the cluster.
  __device__ __forceinline__ void write(const MoeRouteParams& p, int first, int own) {
    if constexpr (kWords > 1) {
      __syncthreads();
      if (threadIdx.x < kMostExperts / 4) counts[threadIdx.x] = rowsBefore(threadIdx.x, kWords);
    }
    syncCluster();
    startExperts(p);
    arriveAtCluster();  // has read the others' counts
    const int topK = static_cast<int>(p.topK);
    for (int i = threadIdx.x; i < own * topK; i += static_cast<int>(blockDim.x)) {
      const int id = ids[i], row = i / topK;
      if (id >= p.experts) continue;
      uint32_t entry = memberOf(next, id) + __popc(memberOf(chosen[row >> 5], id) & ((1u << (row & 31)) - 1));
#pragma unroll
      for (int w = 0; w + 1 < kWords; ++w) entry += w < row >> 5 ? __popc(memberOf(chosen[w], id)) : 0;
      p.slotPlan[static_cast<int64_t>(first) * topK + i] = static_cast<int32_t>(entry);
      p.planRow[entry] = first + row;
    }
    waitForCluster();
  }

 private:
  /// How many of the block's rows in the first `words` words chose each of four experts.
  __device__ __forceinline__ uint4 rowsBefore(int four, int words) const {
    uint4 sum = {};
#pragma unroll
    for (int w = 0; w < kWords; ++w) {
      if (w < words) sum += countsOf(chosen[w][four]);
    }
    return sum;
  }
  __device__ __forceinline__ uint4 countsOfBlock(int four, uint32_t block) const {
    if constexpr (kWords == 1) return countsOf(loadOfBlock(&chosen[0][four], block));
    else return loadOfBlock(&counts[four], block);
  }

  /// expertStart and `next`: a thread has four experts.
  __device__ __forceinline__ void startExperts(const MoeRouteParams& p) {
    const uint32_t rank = clusterRank(), blocks = clusterSize();
    const int thread = static_cast<int>(threadIdx.x), warp = thread >> 5, experts = static_cast<int>(p.experts);
    const bool has = thread < kMostExperts / 4;
    uint4 all = {}, before = {};
    if (has) {
      for (uint32_t b = 0; b < blocks; ++b) {
        const uint4 rows = countsOfBlock(thread, b);
        all += rows;
        if (b < rank) before += rows;
      }
    }
    const auto total = static_cast<int32_t>(all.x + all.y + all.z + all.w);
    int32_t start = sumUpTo(total);
    if (thread % 32 == 31) ofWarps[warp] = start;
    __syncthreads();
    if (has) {
      start -= total;
      for (int w = 0; w < warp; ++w) start += ofWarps[w];
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

template <int kPerThread>
__global__ void __launch_bounds__(kMostTeams* kTeam, 1) chooseInCluster(const __grid_constant__ MoeRouteParams p) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  __shared__ ClusterPlan<1> plan;
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
  if (p.expertStart) plan.write(p, share.first, own);
#endif
}

/// The plan of rows that have chosen.
__global__ void __launch_bounds__(kPlanThreads) planInCluster(const __grid_constant__ MoeRouteParams p) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  __shared__ ClusterPlan<kPlanWords> plan;
  letNextBegin();
  plan.clear();
  __syncthreads();
  const Share share(p);
  const int topK = static_cast<int>(p.topK), most = min(share.size, static_cast<int>(p.capacity) - share.first) * topK;
  const int32_t* ids = p.ids + static_cast<int64_t>(share.first) * topK;
  awaitPrevious();
  int id = static_cast<int>(threadIdx.x) < most ? ids[threadIdx.x] : 0;  // under way with the count of live rows
  const int own = share.live(p);
  for (int i = threadIdx.x; i < own * topK; i += kPlanThreads) {
    if (i >= kPlanThreads) id = ids[i];
    plan.record(p, i / topK, i % topK, id);
  }
  plan.write(p, share.first, own);
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

/// False: the plan, if there is to be one, is left to do.
template <int kPerThread>
bool launchChoice(const CudaContext& context, const MoeRouteParams& p) {
  if (p.capacity <= kMostRows) {
    const unsigned blocks = p.capacity == 1 ? 1 : kBlocks;
    const int teams = static_cast<int>(std::clamp<int64_t>(ceilDiv(p.capacity, blocks), kLeastTeams, kMostTeams));
    launch(context, chooseInCluster<kPerThread>, LaunchShape{dim3(blocks), teams * kTeam, 0, blocks}, p);
    return true;
  }
  launch(context, chooseByTeams<kPerThread>, persistentGrid(context, ceilDiv(p.capacity, kManyTeams), kManyBlocks), kManyTeams * kTeam, 0, p);
  if (p.capacity > kMostPlanned) return false;
  if (p.expertStart) launch(context, planInCluster, LaunchShape{dim3(kBlocks), kPlanThreads, 0, kBlocks}, p);
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
