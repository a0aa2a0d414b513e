// Launches the merge of units that several blocks left.
#include "cuda/dependent.cuh"
#include "cuda/launch.cuh"
#include "ops/mla_decode/merge_units.cuh"
#include "ops/mla_decode/sm90/attend.h"

namespace longcat::cuda {
namespace {

constexpr int kMergeUnitThreads = 256;

constexpr int kMergeWarps = kMergeUnitThreads / 32;

/// Merged latents of all decode rows that no block finished, to qLatent. A warp takes 128 N columns of a head; grid: x = rows, y = warps.
template <int N>
__global__ void __launch_bounds__(kMergeUnitThreads) mergeUnitRows(const __grid_constant__ MlaDecodeParams p, const __grid_constant__ UnitCut cut) {
  constexpr int kParts = static_cast<int>(kHopperRank) / (128 * N);
  __shared__ int2 results;
  const Live live = liveOf(p);  // which is older than the launch before this one, as is where results lie
  const int64_t row = live.begin + blockIdx.x;
  if (row >= live.rows) return awaitPrevious();
  if (threadIdx.x < 32) {
    const int2 its = WorkLine(p, cut).resultsOf(static_cast<int32_t>(row));
    if (threadIdx.x == 0) results = its;
  }
  __syncthreads();
  awaitPrevious();
  letNextBegin();
  const int lane = static_cast<int>(threadIdx.x & 31), warp = static_cast<int>(blockIdx.y * kMergeWarps + threadIdx.x / 32);
  const int64_t head = warp / kParts;
  const int begin = 128 * N * (warp % kParts);
  if (head >= p.heads) return;
  const RowUnits units = unitsAt(p, results, head);
  float4 merged[N];
  if (!mergeUnits<N, 16 / N>(units, begin + 4 * lane, kHopperRank, merged)) return;
  Bf16* to = static_cast<Bf16*>(p.qLatent.data) + (row * p.heads + head) * kHopperRank + begin + lane / 4 * 16 + pairedColumn(lane & 3);
#pragma unroll
  for (int i = 0; i < N; ++i) *reinterpret_cast<uint2*>(to + 128 * i) = pairColumns(merged[i]);
}

template <int N>
void launchMerge(const CudaContext& context, const MlaDecodeParams& p, const UnitCut& cut) {
  const int64_t warps = p.heads * (kHopperRank / (128 * N));
  launch(context, mergeUnitRows<N>, dim3(static_cast<unsigned>(p.capacity), static_cast<unsigned>(ceilDiv(warps, kMergeWarps))), kMergeUnitThreads, 0, p, cut);
}

constexpr int64_t kFewPairs = 4096;  // of a row and a head: so many and more occupy the card with one warp each

}  // namespace

void mergeUnitsOnHopper(const CudaContext& context, const MlaDecodeParams& p) {
  const UnitCut cut = unitCut(context, p);
  return p.capacity * p.heads < kFewPairs ? launchMerge<1>(context, p, cut) : launchMerge<4>(context, p, cut);
}

}  // namespace longcat::cuda
