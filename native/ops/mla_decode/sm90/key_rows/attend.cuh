// Attention of decode rows over a bfloat16 cache in units: as ../attend.cuh has it, but keys (and latent columns) are the rows of the matrix instructions,
// and a block's 16 or 32 heads their columns: any few of them cost what they are, and a head's bits do not depend on how many go together.
//
//   scores of a tile   [64 keys × heads]      = keys · queries^T                 a chain along the row
//   latents            [512 columns × heads] += values^T · weights^T             a chain along the keys of a unit
//
// A unit's sums take half of a block's registers or less, so that the row's sums over the units before stay in the others: that a row is cut in units
// costs next to nothing where one block has all of them, and units can be as small as few rows want them. Where rows are few, blocks of 16 heads are
// more blocks.
//
// Order of sums: as ../attend.cuh has it, but for the weights' sum: each thread adds those of its two rows of each tile that its warpgroup scored, rescaled at
// each tile; in the unit's end lanes, then the four warps in ascending order, then the two warpgroups are added.
#pragma once

#include "ops/mla_decode/sm90/key_rows/copies.cuh"
#include "ops/mla_decode/sm90/key_rows/multiplier.cuh"

namespace longcat::cuda {
namespace {

/// A run: its units one after the other. Where it begins with the row's first unit, the later ones are added to it, and what is left of the whole row is
/// its latents; otherwise each unit leaves its own sums.
template <class Shared>
__device__ __forceinline__ void attendRun(const MlaDecodeParams& p, KeyRowsMultiplier<Shared>& m, const Run& run, uint32_t number, uint32_t& unitCount) {
  constexpr int H = Shared::kHeads;
  const int heads = min(H, static_cast<int>(p.heads) - run.head);
  const bool chain = run.key == 0, whole = run.whole();
  KeyRowsSums<H> row;
  RunningMerge merge[H / 4];
  float* const firstSums = unitSums(p, run.result, run.head);
  float2* const firstWeights = unitWeights(p, run.result, run.head);
  for (int32_t u = 0, key = run.key; key < run.end; ++u, key += run.unitKeys) {
    const bool last = run.end - key <= run.unitKeys;
    m.unit(number, min(run.unitKeys, run.end - key), last, static_cast<int>(unitCount++ & 1));
    number += static_cast<uint32_t>(run.unitKeys / kTileKeys);
    float2* const weights = firstWeights + u * p.heads;
    if (!chain) {
      m.storeSums(m.sums, firstSums + u * p.heads * kHopperRank, heads);
#pragma unroll
      for (int h = 0; h < H / 4; ++h) m.storeWeights(weights, heads, h, m.maximum[h], m.total[h]);
      continue;
    }
#pragma unroll
    for (int h = 0; h < H / 4; ++h) merge[h].add(m.maximum[h], m.total[h]);
    if (u == 0) row = m.sums;
    else
      KeyRowsSums<H>::each([&](int i, int head) {
#pragma unroll
        for (int k = 0; k < 4; ++k) row.latent[k][i] = merge[head].apply(row.latent[k][i], m.sums.latent[k][i]);
      });
    if (last && whole) m.storeLatents(row, merge, static_cast<Bf16*>(p.qLatent.data) + (run.row * p.heads + run.head) * kHopperRank, heads);
    if (whole) continue;  // nobody will ask
    if (last) m.storeSums(row, firstSums, heads);
#pragma unroll
    for (int h = 0; h < H / 4; ++h) {
      if (u > 0) m.storeWeights(weights, heads, h, 0, 0);
      if (last) m.storeWeights(firstWeights, heads, h, merge[h].most, merge[h].total);
    }
  }
}

/// grid: x = groups of H heads · shares.
template <int H>
__global__ void __launch_bounds__(unitThreads(false), 1)
    attendKeyRows(const __grid_constant__ MlaDecodeParams p, const __grid_constant__ UnitMaps maps, const __grid_constant__ UnitCut cut) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using Shared = KeyRowsShared<H>;
  extern __shared__ unsigned char sharedBytes[];
  auto& shared = *reinterpret_cast<Shared*>(sharedBytes + (-sharedAddress(sharedBytes) & 1023));
  if (threadIdx.x == 0) {
    prefetchMap(&maps.cache), prefetchMap(&maps.latent), prefetchMap(&maps.rope);
    shared.beginBarriers();
  }
  __syncthreads();
  if (threadIdx.x < 128) {
    fewerRegisters<56>();
    const int warp = static_cast<int>(threadIdx.x / 32);
    if (warp == kParts) {
      planRunsAndQueries(p, maps, cut, shared);
    } else {
      const KeyCopies<Shared> copies(p, maps, shared, static_cast<Part>(warp));
      followRuns(shared, [&](const Run& run, uint32_t, uint32_t number) { copies.run(run, number); });
    }
    awaitPrevious();
  } else {
    moreRegisters<224>();
    awaitThenLetNextBegin();
    KeyRowsMultiplier<Shared> m(shared, p.softmaxScale);
    uint32_t units = 0;
    followRuns(shared, [&](const Run& run, uint32_t turn, uint32_t number) {
      wait(&shared.queryFull, turn & 1);
      attendRun(p, m, run, number, units);
    });
  }
#else
  awaitPrevious();
#endif
}

}  // namespace
}  // namespace longcat::cuda
