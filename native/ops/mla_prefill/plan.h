// How mla_prefill cuts its work: pure, from counts alone. No number in the result depends on it.
#pragma once

#include "ops/mla_prefill/params.h"

namespace longcat {

constexpr int64_t kTileKeys = 64;  // a whole part of kKeyTile
static_assert(kKeyTile % kTileKeys == 0);

/// One thread's scratch, in floats from its start.
struct MlaPrefillScratch {
  int64_t keys;        // [nope+rope, kTileKeys] the tile's keys, transposed
  int64_t expanded;    // [kTileKeys, nope+v] what W_kvb makes of the tile
  int64_t scores;      // [kQueryRows, kTileKeys]
  int64_t rowIndex;    // [kTileKeys] i32: cache row of each key
  int64_t size;
};

constexpr int64_t kQueryRows = 4;  // query rows that go side by side through a tile

inline MlaPrefillScratch mlaPrefillScratch(const MlaPrefillParams& p) {
  MlaPrefillScratch s{};
  s.keys = 0;
  s.expanded = s.keys + (p.nope + p.rope) * kTileKeys;
  s.scores = s.expanded + (p.nope + p.vDim) * kTileKeys;
  s.rowIndex = s.scores + kQueryRows * kTileKeys;
  s.size = s.rowIndex + kTileKeys;
  return s;
}

/// Query rows of one task. A task expands every key tile that it needs, so rows are only cut where (sequence, head) pairs alone
/// would leave threads idle, and never finer than a tile.
inline int64_t mlaPrefillTaskRows(int64_t longestChunk, int64_t sequences, int64_t heads, int64_t threads) {
  const int64_t pairs = sequences * heads, wanted = 2 * threads;
  if (pairs >= wanted) return longestChunk;
  const int64_t groups = (wanted + pairs - 1) / pairs;
  const int64_t rows = (longestChunk + groups - 1) / groups;
  const int64_t whole = (rows + kTileKeys - 1) / kTileKeys * kTileKeys;
  return whole < longestChunk ? whole : longestChunk;
}

}  // namespace longcat
