// Choice on Hopper, a team of warps a row (team.cuh). Up to kMostRows rows are chosen for and planned by one cluster of blocks in one launch: a
// block keeps in shared memory, for each expert, which of its rows chose it, a bit each; with the words of all blocks every block knows
// where the plan entries of its own rows are: they are counts of bits.
#include "cuda/dependent.cuh"
#include "cuda/hopper/cluster.cuh"
#include "cuda/launch.cuh"
#include "ops/moe_route/plan.cuh"
#include "ops/moe_route/sm90/route.h"
#include "ops/moe_route/sm90/team.cuh"

namespace longcat::cuda {
namespace {

constexpr int kBlocks = 8, kRowsOfBlock = 32;  // a row is a bit of a word
constexpr int kMostTeams = 8, kLeastTeams = 2;
constexpr int kMostExperts = 4 * kLeastTeams * kTeam, kMostRows = kBlocks * kRowsOfBlock;
constexpr int64_t kMostOutputs = 768;
constexpr int kManyTeams = 2, kManyBlocks = 4;  // where rows are more: teams of a block, blocks of a multiprocessor

struct ClusterShared {
  uint4 chosen[kMostExperts / 4];                // of an expert: bit i: the block's i-th row chose it
  uint4 next[kMostExperts / 4];                  // the first plan entry of the block's rows
  int32_t ids[kRowsOfBlock * kMostCandidates];   // of the block's rows, as they are in p.ids
  int32_t ofWarps[kMostTeams * kTeamWarps];
  TeamShared teams[kMostTeams];
};

__device__ __forceinline__ uint4 countsOf(const uint4& words) {
  return make_uint4(__popc(words.x), __popc(words.y), __popc(words.z), __popc(words.w));
}
__device__ __forceinline__ void operator+=(uint4& a, const uint4& b) { a.x += b.x, a.y += b.y, a.z += b.z, a.w += b.w; }
/// How many came before each of four.
__device__ __forceinline__ uint4 startsOf(uint32_t first, const uint4& counts) {
  return make_uint4(first, first + counts.x, first + counts.x + counts.y, first + counts.x + counts.y + counts.z);
}

/// expertStart, and `next` from the words of all blocks: a thread has four experts.
__device__ __forceinline__ void startExperts(const MoeRouteParams& p, ClusterShared& s) {
  const uint32_t rank = clusterRank(), blocks = clusterSize();
  const int thread = static_cast<int>(threadIdx.x), warp = thread >> 5, experts = static_cast<int>(p.experts);
  const bool has = thread < kMostExperts / 4;
  uint4 counts = {}, before = {};
  if (has) {
    for (uint32_t b = 0; b < blocks; ++b) {
      const uint4 rows = countsOf(loadOfBlock(&s.chosen[thread], b));
      counts += rows;
      if (b < rank) before += rows;
    }
  }
  const auto total = static_cast<int32_t>(counts.x + counts.y + counts.z + counts.w);
  int32_t start = sumUpTo(total);
  if (thread % 32 == 31) s.ofWarps[warp] = start;
  __syncthreads();
  if (has) {
    start -= total;
    for (int w = 0; w < warp; ++w) start += s.ofWarps[w];
    const uint4 starts = startsOf(start, counts);
    uint4 next = starts;
    next += before;
    s.next[thread] = next;
    if (rank == 0) forMembers(starts, 4 * thread, [&](uint32_t first, int e) {
      if (e <= experts) p.expertStart[e] = static_cast<int32_t>(first);
    });
  }
  __syncthreads();
}

template <int kPerThread>
__global__ void __launch_bounds__(kMostTeams * kTeam) chooseInCluster(const __grid_constant__ MoeRouteParams p) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  __shared__ ClusterShared s;
  letNextBegin();
  const int threads = static_cast<int>(blockDim.x), teams = threads / kTeam, team = static_cast<int>(threadIdx.x) / kTeam, topK = static_cast<int>(p.topK);
  for (int e = threadIdx.x; e < kMostExperts / 4; e += threads) s.chosen[e] = {};
  Team<kPerThread> mine(p, s.teams[team]);
  __syncthreads();
  const int capacity = static_cast<int>(p.capacity), blocks = static_cast<int>(clusterSize());
  const int share = (capacity + blocks - 1) / blocks, first = static_cast<int>(clusterRank()) * share;
  awaitPrevious();
  if (first + team < capacity) mine.load(first + team);  // whether or not it is live: to wait for the count first would take as long again
  const int own = min(share, static_cast<int>(liveRows(p.rows, p.capacity)) - first);
  for (int i = team; i < own; i += teams) {
    if (i > team) mine.load(first + i);
    mine.choose([&](int slot, int id) {
      s.ids[i * topK + slot] = id;
      if (id < p.experts) atomicOr(&memberOf(s.chosen, id), 1u << i);
    });
  }
  syncCluster();
  startExperts(p, s);
  arriveAtCluster();  // has read the others' words
  for (int i = threadIdx.x; i < own * topK; i += threads) {
    const int id = s.ids[i], row = i / topK;
    if (id >= p.experts) continue;
    const auto entry = static_cast<int32_t>(memberOf(s.next, id) + __popc(memberOf(s.chosen, id) & ((1u << row) - 1)));
    p.slotPlan[static_cast<int64_t>(first) * topK + i] = entry;
    p.planRow[entry] = first + row;
  }
  waitForCluster();
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
  if (p.capacity > kMostRows) {
    launch(context, chooseByTeams<kPerThread>, persistentGrid(context, ceilDiv(p.capacity, kManyTeams), kManyBlocks), kManyTeams * kTeam, 0, p);
    return false;
  }
  const unsigned blocks = p.capacity == 1 ? 1 : kBlocks;
  const int teams = static_cast<int>(std::clamp<int64_t>(ceilDiv(p.capacity, blocks), kLeastTeams, kMostTeams));
  launch(context, chooseInCluster<kPerThread>, LaunchShape{dim3(blocks), teams * kTeam, 0, blocks}, p);
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
