// mla_prefill on a GPU: the first kernel of a round lists where in the cache its keys are.
#pragma once

#include "cuda/dependent.cuh"
#include "ops/mla_prefill/prompts.cuh"

namespace longcat::cuda::prefill {

constexpr int kPlanThreads = 256, kPlanTiles = kPlanThreads / 32;  // a warp a tile

/// Keys that fill up a sequence's last tile stand for its last one: attention masks them, but their values are multiplied by zero, so they must
/// be no worse than the sequence's own.
__global__ void __launch_bounds__(kPlanThreads) planRound(const MlaPrefillParams p, const Round round) {
  awaitPrevious();
  const Live live = liveOf(p);
  const int tile = blockIdx.x * kPlanTiles + threadIdx.x / 32, lane = threadIdx.x & 31;
  if (tile == 0) {
    const int tiles = min(countTiles(p, live, KeyTiles{}) - round.firstTile, round.tiles);
    if (lane == 0) {
      *roundKeys(p) = max(tiles, 0) * kListTile;
      *roundTickets(p) = 0;
    }
  }
  if (tile >= round.tiles) return;
  const Found found = findTile(p, live, round.firstTile + tile, KeyTiles{});
  if (found.sequence < 0) return;
  const int32_t* table = p.blockTables + p.seqSlot[found.sequence] * p.maxBlocks;
  const int blockSize = static_cast<int>(p.blockSize);
  for (int key = lane; key < kListTile; key += 32) {
    const int position = min(found.tile * kListTile + key, found.span.keys - 1);
    roundCacheRows(p)[tile * kListTile + key] = table[position / blockSize] * blockSize + position % blockSize;
  }
}

}  // namespace longcat::cuda::prefill
