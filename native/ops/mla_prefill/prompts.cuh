// mla_prefill on a GPU: which tiles of keys and of queries a step has. A warp finds tile number i by a running sum over the step's prompt
// sequences, 32 at a time. What a round's kernels share is in `roundPlan`.
#pragma once

#include "cuda/reduce.cuh"
#include "ops/mla_prefill/params.h"
#include "ops/step_plan/params.h"

namespace longcat::cuda::prefill {

constexpr int kTileKeys = static_cast<int>(kKeyTile);  // as the device reckons with it

/// Tiles [firstTile, firstTile + tiles) of the flattened list of key tiles: what `expanded` holds.
struct Round {
  int firstTile, tiles;
};

// The parts of roundPlan, written by planRound(). Behind them: roundQueryTiles().
__host__ __device__ inline int32_t* roundKeys(const MlaPrefillParams& p) { return p.roundPlan; }               // keys of the round: its tiles · kKeyTile
__host__ __device__ inline int32_t* roundTickets(const MlaPrefillParams& p) { return p.roundPlan + 1; }        // jobs of attention that blocks have taken
__host__ __device__ inline int32_t* roundQueryTileCount(const MlaPrefillParams& p) { return p.roundPlan + 2; }
__host__ __device__ inline int32_t* roundCacheRows(const MlaPrefillParams& p) { return p.roundPlan + kRoundPlanHead; }  // [keys] each key's row in the cache

/// The live counts of the step's prompt part.
struct Live {
  int rows, sequences;
};

__device__ inline Live liveOf(const MlaPrefillParams& p) {
  return {static_cast<int>(min(static_cast<int64_t>(p.counts[numPrefillRows]), p.capacity)),
          static_cast<int>(min(static_cast<int64_t>(p.counts[numPrefillSequences]), p.maxSequences))};
}

/// One sequence's part of the step: its rows have the positions firstPosition … keys - 1. No keys: it has no rows.
struct Span {
  int firstRow = 0, firstPosition = 0, keys = 0;
};

__device__ inline Span spanOf(const MlaPrefillParams& p, const Live& live, int sequence) {
  Span span;
  if (sequence >= live.sequences) return span;
  const int begin = p.seqStart[sequence], end = min(p.seqStart[sequence + 1], live.rows);
  if (begin >= end) return span;
  span.firstRow = begin;
  span.firstPosition = p.positions[begin];
  span.keys = p.positions[end - 1] + 1;
  return span;
}

/// Tiles of keys, anchored at position 0.
struct KeyTiles {
  __device__ int operator()(const Span& span, int) const { return (span.keys + kTileKeys - 1) / kTileKeys; }
};

/// Tiles of query rows that see a key of the round, anchored at position 0 too: a row's place in its tile follows from its position.
/// `keyTile`: place of the sequence's first key tile in the flattened list.
template <int kRows>
struct QueryTiles {
  Round round;
  __device__ int operator()(const Span& span, int keyTile) const {
    if (span.keys == 0 || keyTile >= round.firstTile + round.tiles) return 0;
    const int firstSeeing = max(span.firstPosition, (round.firstTile - keyTile) * kTileKeys);
    return max(0, (span.keys - 1) / kRows - firstSeeing / kRows + 1);
  }
};

/// Where tile number `index` lies. sequence < 0: there is no such tile, but `tilesBefore` of others.
struct Found {
  int sequence = -1;
  int tile = 0;       // among the sequence's own tiles
  int keyTile = 0;    // place of the sequence's first key tile in the flattened list of key tiles
  int tilesBefore = 0;
  Span span;
};

/// Every lane of the warp calls, with the same index; every lane gets the answer.
template <class Tiles>
__device__ Found findTile(const MlaPrefillParams& p, const Live& live, int index, Tiles tiles) {
  Found found;
  int keyTilesBefore = 0;
  for (int first = 0; first < live.sequences; first += 32) {
    const Span span = spanOf(p, live, first + static_cast<int>(threadIdx.x & 31));
    const int ownKeyTiles = KeyTiles{}(span, 0), keyTilesUpTo = keyTilesBefore + warpInclusiveSum(ownKeyTiles);
    const int own = tiles(span, keyTilesUpTo - ownKeyTiles), upTo = found.tilesBefore + warpInclusiveSum(own);
    const unsigned reached = __ballot_sync(kAllLanes, index < upTo);
    if (reached) {
      const int lane = __ffs(static_cast<int>(reached)) - 1;
      found.sequence = first + lane;
      found.tile = __shfl_sync(kAllLanes, index - (upTo - own), lane);
      found.keyTile = __shfl_sync(kAllLanes, keyTilesUpTo - ownKeyTiles, lane);
      found.span.firstRow = __shfl_sync(kAllLanes, span.firstRow, lane);
      found.span.firstPosition = __shfl_sync(kAllLanes, span.firstPosition, lane);
      found.span.keys = __shfl_sync(kAllLanes, span.keys, lane);
      return found;
    }
    found.tilesBefore = __shfl_sync(kAllLanes, upTo, 31);
    keyTilesBefore = __shfl_sync(kAllLanes, keyTilesUpTo, 31);
  }
  return found;
}

/// How many tiles the step has. Every lane of the warp calls.
template <class Tiles>
__device__ int countTiles(const MlaPrefillParams& p, const Live& live, Tiles tiles) {
  return findTile(p, live, INT32_MAX, tiles).tilesBefore;
}

/// A tile of query rows of one sequence, and the keys that it meets in a round. No keys: no tile.
struct QueryTile {
  Span span;
  int base = 0;                // position of the tile's first row, a multiple of its size
  int fromKey = 0, toKey = 0;  // positions; fromKey is a multiple of kKeyTile
  int64_t firstKey = 0;        // where the round's lists have, or would have, the sequence's key 0
  __device__ bool has(int position) const { return position >= span.firstPosition && position < span.keys; }
  __device__ int64_t row(int position) const { return span.firstRow + (position - span.firstPosition); }
};

/// Tile number `index` of QueryTiles<kRows>{round}, of which a sequence's last ones, which meet the most keys, come first.
template <int kRows>
__device__ QueryTile queryTile(const MlaPrefillParams& p, const Live& live, const Round& round, int index) {
  const Found found = findTile(p, live, index, QueryTiles<kRows>{round});
  QueryTile tile;
  if (found.sequence < 0) return tile;
  tile.span = found.span;
  tile.base = ((found.span.keys - 1) / kRows - found.tile) * kRows;
  tile.fromKey = max(0, round.firstTile - found.keyTile) * kTileKeys;
  tile.toKey = min(min(tile.base + kRows, found.span.keys), (round.firstTile + round.tiles - found.keyTile) * kTileKeys);
  tile.firstKey = (static_cast<int64_t>(found.keyTile) - round.firstTile) * kTileKeys;
  return tile;
}

/// The round's tiles of kQueryTile rows, as queryTile() orders them.
__device__ inline QueryTile* roundQueryTiles(const MlaPrefillParams& p) {
  return reinterpret_cast<QueryTile*>(p.roundPlan + kRoundPlanHead + p.expandedRows);
}
static_assert(sizeof(QueryTile) == kQueryTileNumbers * sizeof(int32_t));

}  // namespace longcat::cuda::prefill
