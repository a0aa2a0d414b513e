// Launches the merge of units that several blocks left.
#include "cuda/dependent.cuh"
#include "cuda/launch.cuh"
#include "ops/mla_decode/merge_units.cuh"
#include "ops/mla_decode/sm90/attend.h"

namespace longcat::cuda {
namespace {

constexpr int kMergeUnitThreads = 256;

/// Merged latents of all decode rows that no block finished, to qLatent. A warp takes 128 N columns of a row and a head.
template <int N>
__global__ void __launch_bounds__(kMergeUnitThreads) mergeUnitRows(const __grid_constant__ MlaDecodeParams p, const __grid_constant__ UnitCut cut) {
  constexpr int kParts = static_cast<int>(kHopperRank) / (128 * N);
  const Live live = liveOf(p);  // which is older than the launch before this one, as is where results lie
  const int64_t item = static_cast<int64_t>(blockIdx.x) * (kMergeUnitThreads / 32) + threadIdx.x / 32, pair = item / kParts;
  const int64_t row = live.begin + pair / p.heads, head = pair % p.heads;
  const int lane = static_cast<int>(threadIdx.x & 31), begin = 128 * N * static_cast<int>(item % kParts);
  if (row >= live.rows) return awaitPrevious();
  const RowUnits units = rowUnits(p, cut, row, head);
  awaitPrevious();
  letNextBegin();
  float4 merged[N];
  if (!mergeUnits<N, 16 / N>(units, begin + 4 * lane, kHopperRank, merged)) return;
  Bf16* to = static_cast<Bf16*>(p.qLatent.data) + (row * p.heads + head) * kHopperRank + begin + lane / 4 * 16 + pairedColumn(lane & 3);
#pragma unroll
  for (int i = 0; i < N; ++i) *reinterpret_cast<uint2*>(to + 128 * i) = pairColumns(merged[i]);
}

template <int N>
void launchMerge(const CudaContext& context, const MlaDecodeParams& p, const UnitCut& cut) {
  const int64_t warps = p.capacity * p.heads * (kHopperRank / (128 * N));
  launch(context, mergeUnitRows<N>, dim3(static_cast<unsigned>(ceilDiv(warps, kMergeUnitThreads / 32))), kMergeUnitThreads, 0, p, cut);
}

constexpr int64_t kFewPairs = 4096;  // of a row and a head: so many and more occupy the card with one warp each

}  // namespace

void mergeUnitsOnHopper(const CudaContext& context, const MlaDecodeParams& p) {
  const UnitCut cut = unitCut(context, p);
  return p.capacity * p.heads < kFewPairs ? launchMerge<1>(context, p, cut) : launchMerge<4>(context, p, cut);
}

}  // namespace longcat::cuda
