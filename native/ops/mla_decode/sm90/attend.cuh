// Attention of decode rows on Hopper: latents of 512 numbers, rope keys of 64, bfloat16 or packed (key_rows/ has the kernel for few heads). A block takes runs
// of units (units.cuh): keys of one row that follow each other, and 64 heads, which are the rows of its matrix instructions. The keys come in tiles of 64, two
// of them in shared memory, copied by the copy engine.
//
// A tile is nine panels of 64 keys × 64 numbers. Scores read a panel as rows along k, values read the first eight again as rows across k: each byte
// comes once. When its scores are there the ninth panel (the rope key) is no longer needed, and the tile's weights lie there instead.
//
// Two warpgroups share the work: each holds the sums of 256 latent columns, and scores every second tile. While one is at its softmax, which needs
// no tensor cores, the other multiplies.
//
//   warpgroup A   scores 0 │ softmax 0 · values −1 │ values 0 │ scores 2 │ softmax 2 · values 1 │ …
//   warpgroup B              scores 1 │ softmax 1 · values 0 │ values 1 │ scores 3 │ …
//
// Where memory is behind, a warpgroup does not wait for its next tile with the other's values undone: it adds them first, and their panels are free.
//
// Order of sums: a score is one chain along the row; a latent's number one chain along the keys of a unit in steps of 16, rescaled at each tile where
// the maximum grows; a tile's weights, rounded to bfloat16 for both uses, are added within the four threads that share a row, and tiles in ascending
// order; then units as merge_units.cuh has it.
//
// A packed tile becomes a plain one in shared memory, by a warpgroup of its own: what multiplies does not know of it.
//
// In rooms: what a block has (block.cuh); who finds its runs (runs.cuh), who copies (copies.cuh), who unpacks (unpacker.cuh), who multiplies (multiplier.cuh); what becomes of sums
// (sums.cuh).
#pragma once

#include "cuda/dependent.cuh"
#include "ops/mla_decode/sm90/copies.cuh"
#include "ops/mla_decode/sm90/multiplier.cuh"
#include "ops/mla_decode/sm90/runs.cuh"
#include "ops/mla_decode/sm90/unpacker.cuh"

namespace longcat::cuda {
namespace {

/// A run: its units one after the other. Where it begins with the row's first unit, the later ones are added to it, and what is left of the whole row is
/// its latents; otherwise each unit leaves its own sums.
template <int PIECES>
__device__ __forceinline__ void attendRun(const MlaDecodeParams& p, Multiplier<PIECES>& m, const Run& run, uint32_t number) {
  const int heads = min(kUnitHeads, static_cast<int>(p.heads) - run.head);
  const bool chain = run.key == 0, whole = run.whole();
  RunningMerge merge[2];
  float* const firstSums = unitSums(p, run.result, run.head);
  float2* const firstWeights = unitWeights(p, run.result, run.head);
  for (int32_t u = 0, key = run.key; key < run.end; ++u, key += run.unitKeys) {
    const bool last = run.end - key <= run.unitKeys;
    m.unit(number, min(run.unitKeys, run.end - key), last);
    number += static_cast<uint32_t>(run.unitKeys / kTileKeys);
    float2* const weights = firstWeights + u * p.heads;
    if (!chain) {
      m.storeSums(firstSums + u * p.heads * kHopperRank, heads);
#pragma unroll
      for (int r = 0; r < 2; ++r) m.storeWeights(weights, heads, m.maximum[r], m.total[r], r);
      continue;
    }
    if (u > 0) m.addTo(firstSums, merge, heads);
    else merge[0].add(m.maximum[0], m.total[0]), merge[1].add(m.maximum[1], m.total[1]);
    if (!last || !whole) m.storeSums(firstSums, heads);
    else m.storeLatents(static_cast<Bf16*>(p.qLatent.data) + (run.row * p.heads + run.head) * kHopperRank, merge, heads);
    if (whole) continue;  // nobody will ask
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      if (u > 0) m.storeWeights(weights, heads, 0, 0, r);
      if (last) m.storeWeights(firstWeights, heads, merge[r].most, merge[r].total, r);
    }
  }
}

template <bool PACKED>
__global__ void __launch_bounds__(unitThreads(PACKED), 1) attendUnits(const __grid_constant__ MlaDecodeParams p, const __grid_constant__ UnitMaps maps, const __grid_constant__ UnitCut cut) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ unsigned char sharedBytes[];
  UnitShared& shared = *reinterpret_cast<UnitShared*>(sharedBytes + (-sharedAddress(sharedBytes) & 1023));
  if (threadIdx.x == 0) {
    prefetchMap(&maps.cache), prefetchMap(&maps.latent), prefetchMap(&maps.rope);
    if constexpr (PACKED) prefetchMap(&maps.ropeKeys);
    initBarrier(&shared.queryFull, 1);
    initBarrier(&shared.queryEmpty, 8);  // a warp is one arrival
    for (int stage = 0; stage < 2; ++stage) {
      for (int panel = 0; panel < kPanels; ++panel) initBarrier(&shared.full[stage][panel], PACKED && panel < kValuePanels ? 4 : 1);
      for (int group = 0; group < kCodeGroups; ++group) initBarrier(&shared.codes[stage][group], 1);
      for (int part = 0; part < kParts; ++part) initBarrier(&shared.empty[stage][part], 4);
      initBarrier(&shared.weights[stage], 4);
      initBarrier(&shared.runFull[stage], 1);
      initBarrier(&shared.runEmpty[stage], runReaders(PACKED));
    }
    fenceBarriers();
  }
  __syncthreads();
  // Lengths, tables and the cache are older than the launch before this one, which only absorbed the queries: all that has to be awaited are those.
  if (threadIdx.x < 128) {
    fewerRegisters<PACKED ? 56 : 56>();
    const int warp = static_cast<int>(threadIdx.x / 32);
    if (warp == kParts) {
      planRuns(p, cut, shared, [](const Run&) {});
    } else {
      const Copies<PACKED> copies(p, maps, shared, static_cast<Part>(warp));
      followRuns(shared, [&](const Run& run, uint32_t turn, uint32_t number) { copies.run(run, turn, number); });
    }
    awaitPrevious();
  } else if (PACKED && threadIdx.x >= 384) {
    fewerRegisters<40>();
    const Unpacker unpacker(shared);
    followRuns(shared, [&](const Run& run, uint32_t, uint32_t number) { unpacker.run(run, number); });
    awaitPrevious();
  } else {
    moreRegisters<PACKED ? 208 : 224>();
    awaitThenLetNextBegin();
    Multiplier<PACKED ? 2 : 1> m(shared, p.softmaxScale);
    followRuns(shared, [&](const Run& run, uint32_t turn, uint32_t number) {
      wait(&shared.queryFull, turn & 1);
      attendRun(p, m, run, number);
    });
  }
#else
  awaitPrevious();
#endif
}

}  // namespace
}  // namespace longcat::cuda
