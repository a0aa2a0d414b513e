// Attention of decode rows on Hopper: one warp of a block finds its runs for all others.
#pragma once

#include "ops/mla_decode/sm90/block.cuh"

namespace longcat::cuda {
namespace {

/// Tells all of the block's runs, and behind them one without keys; told(Run) after each. A whole warp calls.
template <class Shared, class F>
__device__ __forceinline__ void planRuns(const MlaDecodeParams& p, const UnitCut& cut, Shared& shared, const F& told) {
  RingPlace<2> at;
  const auto tell = [&](const Run& run) {
    wait(&shared.runEmpty[at.stage], at.phase ^ 1);
    if ((threadIdx.x & 31) == 0) {
      shared.run[at.stage] = run;
      arrive(&shared.runFull[at.stage]);
    }
    __syncwarp();
    at.next();
  };
  const int32_t block = static_cast<int32_t>(blockIdx.x), group = block / cut.shares;
  forRuns(p, cut, block - group * cut.shares, group * Shared::kHeads, [&](const Run& run) {
    tell(run);
    told(run);
  });
  tell(Run{});
}

/// f(Run, its number, number of its first tile) for all of the block's runs. A whole warp calls.
template <class Shared, class F>
__device__ __forceinline__ void followRuns(Shared& shared, const F& f) {
  RingPlace<2> at;
  for (uint32_t turn = 0, number = 0;; ++turn) {
    wait(&shared.runFull[at.stage], at.phase);
    // Out of lane 0: so the compiler knows that warps do not diverge by it, which the matrix instructions want.
    const int32_t word = reinterpret_cast<const int32_t*>(&shared.run[at.stage])[(threadIdx.x & 31) % (sizeof(Run) / sizeof(int32_t))];
    const auto its = [&](int i) { return __shfl_sync(kAllLanes, word, i); };
    const Run run{its(0), its(1), its(2), its(3), its(4), its(5), its(6), its(7)};
    __syncwarp();
    if ((threadIdx.x & 31) == 0) arrive(&shared.runEmpty[at.stage]);
    if (run.end == 0) return;
    f(run, turn, number);
    number += static_cast<uint32_t>(run.tiles());
    at.next();
  }
}
static_assert(sizeof(Run) == 8 * sizeof(int32_t));

}  // namespace
}  // namespace longcat::cuda
