// Launches the merge of units that several blocks left.
#include "cuda/dependent.cuh"
#include "cuda/launch.cuh"
#include "ops/mla_decode/merge_units.cuh"
#include "ops/mla_decode/sm90/attend.h"

namespace longcat::cuda {
namespace {

constexpr int kMergeUnitThreads = 128, kMergeWarps = kMergeUnitThreads / 32;

constexpr int kMergeBlocks = 8;  // on a multiprocessor

/// Merged latents of all decode rows that no block finished, to qLatent. grid: x = rows, y = blocks that share a row's heads, of which a warp takes N pieces
/// of 32 V's at a time. All blocks find room at once: a wave costs as much as a row that is to be merged.
template <class V, int N>
__global__ void __launch_bounds__(kMergeUnitThreads, kMergeBlocks) mergeUnitRows(const __grid_constant__ MlaDecodeParams p, const __grid_constant__ UnitCut cut) {
  constexpr int kWide = sizeof(V) / sizeof(float), kPiece = 32 * kWide, kParts = static_cast<int>(kHopperRank) / (kPiece * N);
  __shared__ int2 results;
  const Live live = liveOf(p);  // which is older than the launch before this one, as is where results lie
  const int64_t row = live.begin + blockIdx.x;
  if (row >= live.rows) return awaitPrevious();
  if (threadIdx.x < 32) {
    const WorkLine line(p, cut);
    const int2 its = line.resultsOf(line.turnOf(static_cast<int32_t>(row)));
    if (threadIdx.x == 0) results = its;
  }
  __syncthreads();
  awaitThenLetNextBegin();
  if (results.y == 0) return;
  const int lane = static_cast<int>(threadIdx.x & 31), warps = static_cast<int>(gridDim.y) * kMergeWarps, items = static_cast<int>(p.heads) * kParts;
  for (int item = static_cast<int>(blockIdx.y * kMergeWarps + threadIdx.x / 32); item < items; item += warps) {
    const int head = item / kParts, begin = kPiece * N * (item % kParts);
    V merged[N];
    mergeUnits<V, N, 32 / (kWide * N)>(unitsAt(p, results, head), begin + kWide * lane, merged);
    Bf16* to = static_cast<Bf16*>(p.qLatent.data) + (row * p.heads + head) * kHopperRank;
#pragma unroll
    for (int i = 0; i < N; ++i) storeMerged(cut, to, begin + kPiece * i, merged[i]);
  }
}

template <class V, int N>
void launchMerge(const CudaContext& context, const MlaDecodeParams& p, const UnitCut& cut) {
  const int64_t warps = p.heads * kHopperRank / (8 * static_cast<int64_t>(sizeof(V)) * N), room = std::max<int64_t>(1, kMergeBlocks * context.multiprocessors / p.capacity);
  const dim3 grid(static_cast<unsigned>(p.capacity), static_cast<unsigned>(std::min(ceilDiv(warps, kMergeWarps), room)));
  launch(context, mergeUnitRows<V, N>, grid, kMergeUnitThreads, 0, p, cut);
}

/// As narrow as one wave allows.
void merge(const CudaContext& context, const MlaDecodeParams& p, const UnitCut& cut) {
  if (p.capacity <= 4) return launchMerge<float, 1>(context, p, cut);
  return p.capacity <= 16 ? launchMerge<float4, 1>(context, p, cut) : launchMerge<float4, 2>(context, p, cut);
}

}  // namespace

void mergeUnitsOnHopper(const CudaContext& context, const MlaDecodeParams& p) { merge(context, p, unitCut(context, p)); }

}  // namespace longcat::cuda
