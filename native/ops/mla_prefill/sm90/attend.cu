// Prompt attention of one round on Hopper (FlashAttention-3's scheme: Shah et al., 2024). A persistent block has one warp that takes jobs and has
// tiles copied, and two warpgroups that compute: each begins the scores of the next tile and the sums of this one together, and while one turns
// scores into weights the tensor cores work for the other.
//
// A row's place in its job and in its key tiles follows from its position; tiles ascend from position 0. So a row meets the same instructions however
// the prompt is cut and whatever runs beside it.
#include "ops/mla_prefill/sm90/attend.h"

#include "cuda/dependent.cuh"
#include "cuda/launch.cuh"
#include "ops/mla_prefill/sm90/compute.cuh"
#include "ops/mla_prefill/sm90/copies.cuh"

namespace longcat::cuda::prefill {
namespace {

__global__ void __launch_bounds__(kThreads, 1) attendRound(const MlaPrefillParams p, const __grid_constant__ AttendMaps maps) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(1024) unsigned char attendBlock[];
  auto& block = *reinterpret_cast<AttendBlock*>(attendBlock);
  if (threadIdx.x == 0) initBlock(block);
  __syncthreads();
  awaitPrevious();
  const int group = __shfl_sync(kAllLanes, static_cast<int>(threadIdx.x) / kGroupThreads, 0);
  if (group == 0) {
    fewerRegisters<kCopierRegisters>();
    if (threadIdx.x < 32) Copier(p, maps, block).run();
  } else {
    moreRegisters<kComputeRegisters>();
    compute(p, block, group - 1);
  }
#endif
}

/// Rows of the cache that a box may have: they are of one block of the cache and of one key tile, and fill whole swizzled pieces. 0: none.
int ropeRowsOf(const MlaPrefillParams& p) {
  for (int rows = kTileKeys; rows >= 8; rows /= 2)
    if (p.blockSize % rows == 0) return rows;
  return 0;
}

}  // namespace

bool attendHopper(const CudaContext& context, const MlaPrefillParams& p) {
  const int ropeRows = ropeRowsOf(p);
  const bool usual = p.nope == kNope && p.rope == kRope && p.vDim == kValue;
  if (context.capability != 90 || !usual || ropeRows == 0 || sizeof(AttendBlock) > static_cast<size_t>(context.sharedBytes)) return false;
  constexpr int kBytes = sizeof(Bf16), kSwizzle = 128;
  const int64_t queryWidth = p.heads * (kNope + kRope), expandedWidth = p.heads * (kNope + kValue), cacheWidth = p.kvRank + kRope;
  const AttendMaps maps{matrixMap(p.q.data, kBytes, p.capacity, queryWidth, queryWidth * kBytes, kGroupRows, 64, kSwizzle),
                        matrixMap(p.expanded.data, kBytes, p.expandedRows, expandedWidth, expandedWidth * kBytes, kTileKeys, 64, kSwizzle),
                        matrixMap(p.cache.data, kBytes, p.cacheRows, cacheWidth, cacheWidth * kBytes, ropeRows, 64, kSwizzle), ropeRows};
  const int64_t tiles = ceilDiv(p.capacity, kJobRows) + std::min(p.maxSequences, p.capacity);  // at most about
  launch(context, attendRound, persistentGrid(context, tiles * p.heads), kThreads, sizeof(AttendBlock), p, maps);
  return true;
}

}  // namespace longcat::cuda::prefill
