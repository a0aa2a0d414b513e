// Launches the merge of units that several blocks left.
#include "cuda/dependent.cuh"
#include "cuda/launch.cuh"
#include "ops/mla_decode/merge_units.cuh"
#include "ops/mla_decode/sm90/attend.h"

namespace longcat::cuda {
namespace {

constexpr int kMergeUnitThreads = 256;

/// Merged latents of all decode rows that no block finished, to qLatent. A warp takes a row and a head.
__global__ void __launch_bounds__(kMergeUnitThreads) mergeUnitRows(const MlaDecodeParams p, const UnitRule rule) {
  awaitPrevious();
  letNextBegin();
  const Live live = liveOf(p);
  const int lane = static_cast<int>(threadIdx.x & 31), warps = kMergeUnitThreads / 32;
  const int64_t pairs = (live.rows - live.begin) * p.heads;
  for (int64_t pair = static_cast<int64_t>(blockIdx.x) * warps + threadIdx.x / 32; pair < pairs; pair += static_cast<int64_t>(gridDim.x) * warps) {
    const int64_t row = live.begin + pair / p.heads, head = pair % p.heads;
    float4 merged[4];
    if (!mergeUnits<4>(rowUnits(p, rule, live, row, head), 4 * lane, kHopperRank, merged)) continue;
    Bf16* to = static_cast<Bf16*>(p.qLatent.data) + (row * p.heads + head) * kHopperRank + lane / 4 * 16 + pairedColumn(lane & 3);
#pragma unroll
    for (int i = 0; i < 4; ++i) *reinterpret_cast<uint2*>(to + 128 * i) = pairColumns(merged[i]);
  }
}

}  // namespace

void mergeUnitsOnHopper(const CudaContext& context, const MlaDecodeParams& p) {
  const int64_t blocks = ceilDiv(p.capacity * p.heads, kMergeUnitThreads / 32);
  launch(context, mergeUnitRows, dim3(persistentGrid(context, blocks, 4)), kMergeUnitThreads, 0, p, kUnitRule);
}

}  // namespace longcat::cuda
