// mla_prefill on a GPU: the first kernel of a round lists where in the cache its keys are.
#pragma once

#include <algorithm>

#include "cuda/dependent.cuh"
#include "ops/mla_prefill/prompts.cuh"

namespace longcat::cuda::prefill {

constexpr int kPlanThreads = 256, kPlanTiles = kPlanThreads / 32;  // a warp a tile

/// Blocks that have a warp for each tile of keys and for each tile of queries there may be.
inline int planBlocks(const MlaPrefillParams& p, const Round& round) {
  const int64_t queryTiles = (roundPlanNumbers(p.capacity, p.maxSequences, 0) - kRoundPlanHead) / kQueryTileNumbers;
  return static_cast<int>((std::max<int64_t>(round.tiles, queryTiles) + kPlanTiles - 1) / kPlanTiles);
}

/// Where in the cache the keys of the round's tile number `tile` are. Keys that fill up a sequence's last tile stand for its last one: attention
/// masks them, but their values are multiplied by zero, so they must be no worse than the sequence's own.
__device__ inline void listKeys(const MlaPrefillParams& p, const Live& live, const Round& round, int tile) {
  const Found found = findTile(p, live, round.firstTile + tile, KeyTiles{});
  if (found.sequence < 0) return;
  const int32_t* table = p.blockTables + p.seqSlot[found.sequence] * p.maxBlocks;
  const int blockSize = static_cast<int>(p.blockSize);
  for (int key = threadIdx.x & 31; key < kTileKeys; key += 32) {
    const int position = min(found.tile * kTileKeys + key, found.span.keys - 1);
    roundCacheRows(p)[tile * kTileKeys + key] = table[position / blockSize] * blockSize + position % blockSize;
  }
}

__global__ void __launch_bounds__(kPlanThreads) planRound(const MlaPrefillParams p, const Round round) {
  awaitPrevious();
  const Live live = liveOf(p);
  const int number = blockIdx.x * kPlanTiles + threadIdx.x / 32;
  const bool writes = (threadIdx.x & 31) == 0;
  if (number == 0) {
    const int keyTiles = min(countTiles(p, live, KeyTiles{}) - round.firstTile, round.tiles);
    const int queryTiles = countTiles(p, live, QueryTiles<kQueryTile>{round});
    if (writes) {
      *roundKeys(p) = max(keyTiles, 0) * kTileKeys;
      *roundTickets(p) = 0;
      *roundQueryTileCount(p) = queryTiles;
    }
  }
  if (number < round.tiles) listKeys(p, live, round, number);
  const QueryTile tile = queryTile<kQueryTile>(p, live, round, number);
  if (writes && tile.toKey > 0) roundQueryTiles(p)[number] = tile;
}

}  // namespace longcat::cuda::prefill
