// How mla_prefill cuts its work: pure, from counts alone. No number in the result depends on it.
#pragma once

#include "ops/mla_prefill/params.h"

namespace longcat {

constexpr int64_t kPartKeys = 64;  // a whole part of kKeyTile
static_assert(kKeyTile % kPartKeys == 0);

/// One thread's scratch, in floats from its start.
struct MlaPrefillScratch {
  int64_t keys;        // [nope+rope, kPartKeys] the tile's keys, transposed
  int64_t expanded;    // [kPartKeys, nope+v] what W_kvb makes of the tile
  int64_t scores;      // [kQueryRows, kPartKeys]
  int64_t rowIndex;    // [kPartKeys] i32: cache row of each key
  int64_t rows;        // [kPartKeys, kvRank+rope] of a packed cache: the keys' cache rows
  int64_t size;
};

constexpr int64_t kQueryRows = 4;  // query rows that go side by side through a tile

inline MlaPrefillScratch mlaPrefillScratch(const MlaPrefillParams& p) {
  MlaPrefillScratch s{};
  s.keys = 0;
  s.expanded = s.keys + (p.nope + p.rope) * kPartKeys;
  s.scores = s.expanded + (p.nope + p.vDim) * kPartKeys;
  s.rowIndex = s.scores + kQueryRows * kPartKeys;
  s.rows = s.rowIndex + kPartKeys;
  s.size = s.rows + (p.packedCache ? kPartKeys * (p.kvRank + p.rope) : 0);
  return s;
}

/// Query rows of one task. A task expands every key tile that it needs, so rows are only cut where (sequence, head) pairs alone
/// would leave threads idle, and never finer than a tile.
inline int64_t mlaPrefillTaskRows(int64_t longestChunk, int64_t sequences, int64_t heads, int64_t threads) {
  const int64_t pairs = sequences * heads, wanted = 2 * threads;
  if (pairs >= wanted) return longestChunk;
  const int64_t groups = (wanted + pairs - 1) / pairs;
  const int64_t rows = (longestChunk + groups - 1) / groups;
  const int64_t whole = (rows + kPartKeys - 1) / kPartKeys * kPartKeys;
  return whole < longestChunk ? whole : longestChunk;
}

}  // namespace longcat
