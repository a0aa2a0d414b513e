// Choice and plan of up to kRows rows by one cluster of blocks, in one launch. A block chooses for its share of the rows and keeps in shared
// memory, for each expert, which of them chose it: a bit each. With the words of all blocks every block knows where the plan entries of its
// own rows are: they are counts of bits.
#include "cuda/hopper/cluster.cuh"
#include "cuda/hopper/launch.cuh"
#include "ops/moe_route/choose.cuh"
#include "ops/moe_route/plan.cuh"
#include "ops/moe_route/sm90/route.h"

namespace longcat::cuda {
namespace {

constexpr int kBlocks = 8, kRowsOfBlock = 32;  // a row is a bit of a word
constexpr int kFewWarps = 8, kManyWarps = 16;  // of a block; with the fewer it finds room beside one that still makes logits
constexpr int64_t kFewRows = kBlocks * kFewWarps;
constexpr int64_t kMostExperts = 1024, kMostTopK = 32, kMostOutputs = 768;

struct ClusterShared {
  uint32_t chosen[kMostExperts];           // bit i: the block's i-th row chose the expert
  int32_t next[kMostExperts];              // the first plan entry of the block's rows
  int32_t ids[kRowsOfBlock * kMostTopK];   // of the block's rows, as they are in p.ids
  int32_t ofWarps[kManyWarps];
  ChoiceShared choice[kManyWarps];
};

/// expertStart, and `next` from the words of all blocks. A thread has kPerThread experts in a row.
template <int kPerThread>
__device__ __forceinline__ void startExperts(const MoeRouteParams& p, ClusterShared& s) {
  const int rank = static_cast<int>(clusterRank()), blocks = static_cast<int>(clusterSize()), experts = static_cast<int>(p.experts);
  const int thread = static_cast<int>(threadIdx.x), lane = thread & 31, warp = thread >> 5;
  int32_t count[kPerThread] = {}, before[kPerThread] = {}, total = 0;
#pragma unroll
  for (int j = 0; j < kPerThread; ++j) {
    const int e = thread * kPerThread + j;
    if (e >= experts) break;
    for (int b = 0; b < blocks; ++b) {
      const int32_t rows = __popc(loadOfBlock(&s.chosen[e], b));
      count[j] += rows;
      if (b < rank) before[j] += rows;
    }
    total += count[j];
  }
  const int32_t upTo = sumUpTo(total);
  if (lane == 31) s.ofWarps[warp] = upTo;
  __syncthreads();
  int32_t start = upTo - total;
  for (int w = 0; w < warp; ++w) start += s.ofWarps[w];
#pragma unroll
  for (int j = 0; j < kPerThread; ++j) {
    const int e = thread * kPerThread + j;
    if (e >= experts) break;
    s.next[e] = start + before[j];
    if (rank == 0) p.expertStart[e] = start;
    start += count[j];
    if (rank == 0 && e == experts - 1) p.expertStart[experts] = start;
  }
  __syncthreads();
}

template <int kPerLane>
__global__ void __launch_bounds__(kManyWarps * 32) chooseInCluster(const __grid_constant__ MoeRouteParams p) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  __shared__ ClusterShared s;
  const int warp = static_cast<int>(threadIdx.x) >> 5, threads = static_cast<int>(blockDim.x), topK = static_cast<int>(p.topK);
  for (int e = threadIdx.x; e < static_cast<int>(p.experts); e += threads) s.chosen[e] = 0;
  LaneScores<kPerLane> mine(p);
  const int rows = static_cast<int>(liveRows(p.rows, p.capacity)), blocks = static_cast<int>(clusterSize());
  const int share = (rows + blocks - 1) / blocks, first = static_cast<int>(clusterRank()) * share, own = max(0, min(share, rows - first));
  __syncthreads();
  waitForLaunchBefore();  // the logits; what is read before this was there before they were begun

  for (int i = warp; i < own; i += threads / 32) {
    chooseOfRow(p, first + i, mine, s.choice[warp], [&](int slot, int id) {
      s.ids[i * topK + slot] = id;
      if (id < p.experts) atomicOr(&s.chosen[id], 1u << i);
    });
  }
  syncCluster();
  if (p.experts <= 2 * threads) startExperts<2>(p, s);
  else startExperts<4>(p, s);
  arriveAtCluster();  // has read the others' words
  for (int i = threadIdx.x; i < own * topK; i += threads) {
    const int id = s.ids[i], row = i / topK;
    if (id >= p.experts) continue;
    const int32_t entry = s.next[id] + __popc(s.chosen[id] & ((1u << row) - 1));
    p.slotPlan[static_cast<int64_t>(first) * topK + i] = entry;
    p.planRow[entry] = first + row;
  }
  waitForCluster();
#endif
}

template <int kPerLane>
void launchChoice(const CudaContext& context, const MoeRouteParams& p) {
  const unsigned blocks = p.capacity == 1 ? 1 : kBlocks;
  const int warps = p.capacity <= kFewRows ? kFewWarps : kManyWarps;
  launch(context, chooseInCluster<kPerLane>, LaunchShape{dim3(blocks), warps * 32, 0, blocks, true}, p);
}

}  // namespace

bool launchClusterChoice(const CudaContext& context, const MoeRouteParams& p) {
  static_assert(kMostExperts <= 4 * kFewWarps * 32);
  const int64_t all = p.classifier.rows;
  if (context.capability != 90 || p.capacity > kBlocks * kRowsOfBlock || p.experts > kMostExperts || p.topK > kMostTopK || all > kMostOutputs) return false;
  if (all <= 32 * 12) launchChoice<12>(context, p);
  else launchChoice<24>(context, p);
  return true;
}

}  // namespace longcat::cuda
