// Launches the merge of units that several blocks left.
#include "cuda/dependent.cuh"
#include "cuda/launch.cuh"
#include "ops/mla_decode/merge_units.cuh"
#include "ops/mla_decode/sm90/attend.h"

namespace longcat::cuda {
namespace {

constexpr int kMergeUnitThreads = 128, kMergeWarps = kMergeUnitThreads / 32;

/// Merged latents of all decode rows that no block finished, to qLatent. grid: x = rows, y = blocks that share a row's heads, of which a warp takes
/// 128 N columns at a time. All blocks find room at once, kBlocks on a multiprocessor: a wave costs as much as a row that is to be merged.
template <int N, int kAtOnce, int kBlocks>
__global__ void __launch_bounds__(kMergeUnitThreads, kBlocks) mergeUnitRows(const __grid_constant__ MlaDecodeParams p, const __grid_constant__ UnitCut cut) {
  constexpr int kParts = static_cast<int>(kHopperRank) / (128 * N);
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
  awaitPrevious();
  if (results.y == 0) return;
  letNextBegin();
  const int lane = static_cast<int>(threadIdx.x & 31), warps = static_cast<int>(gridDim.y) * kMergeWarps, items = static_cast<int>(p.heads) * kParts;
  for (int item = static_cast<int>(blockIdx.y * kMergeWarps + threadIdx.x / 32); item < items; item += warps) {
    const int head = item / kParts, begin = 128 * N * (item % kParts);
    float4 merged[N];
    if (!mergeUnits<N, kAtOnce>(unitsAt(p, results, head), begin + 4 * lane, kHopperRank, merged)) continue;
    Bf16* to = static_cast<Bf16*>(p.qLatent.data) + (row * p.heads + head) * kHopperRank + begin + lane / 4 * 16 + pairedColumn(lane & 3);
#pragma unroll
    for (int i = 0; i < N; ++i) *reinterpret_cast<uint2*>(to + 128 * i) = pairColumns(merged[i]);
  }
}

template <int N, int kAtOnce, int kBlocks>
void launchMerge(const CudaContext& context, const MlaDecodeParams& p, const UnitCut& cut) {
  const int64_t warps = p.heads * (kHopperRank / (128 * N)), room = std::max<int64_t>(1, kBlocks * context.multiprocessors / p.capacity);
  const dim3 grid(static_cast<unsigned>(p.capacity), static_cast<unsigned>(std::min(ceilDiv(warps, kMergeWarps), room)));
  launch(context, mergeUnitRows<N, kAtOnce, kBlocks>, grid, kMergeUnitThreads, 0, p, cut);
}

/// Few rows: a warp for each 128 columns, which asks for many results at once.
void merge(const CudaContext& context, const MlaDecodeParams& p, const UnitCut& cut) {
  return p.capacity <= 8 ? launchMerge<1, 16, 4>(context, p, cut) : launchMerge<2, 4, 8>(context, p, cut);
}

}  // namespace

void mergeUnitsOnHopper(const CudaContext& context, const MlaDecodeParams& p) { merge(context, p, unitCut(context, p)); }

}  // namespace longcat::cuda
