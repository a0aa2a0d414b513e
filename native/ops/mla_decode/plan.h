// How mla_decode cuts its work: pure, from counts alone. No number in the result depends on it.
#pragma once

#include "ops/mla_decode/params.h"

namespace longcat {

constexpr int64_t kHeadTile = 4;      // heads that share each load of a cache row
constexpr int64_t kMaxTaskHeads = 16; // heads of one task at most: they share a split's rows in the second-level cache
constexpr int64_t kMergeRows = 16;    // rows whose merged latents go together through W_v

/// One thread's scratch, in floats from its start. The two passes that use it never overlap.
struct MlaDecodeScratch {
  int64_t query;    // [kHeadTile, kvRank+rope] q_lat | q_rope
  int64_t scores;   // [kHeadTile, kSplitKeys]
  int64_t keyRows;  // [kSplitKeys] pointers to cache rows, two floats each
  int64_t rows;     // [kSplitKeys, kvRank+rope] of a packed cache: the keys' cache rows
  int64_t merged;   // [kMergeRows, kvRank]; begins at 0 again
  int64_t size;
};

inline MlaDecodeScratch mlaDecodeScratch(const MlaDecodeParams& p) {
  MlaDecodeScratch s{};
  s.keyRows = 0;
  s.scores = s.keyRows + 2 * kSplitKeys;
  s.query = s.scores + kHeadTile * kSplitKeys;
  s.merged = 0;
  s.rows = s.query + kHeadTile * (p.kvRank + p.rope);
  const int64_t attend = s.rows + (p.packedCache ? kSplitKeys * (p.kvRank + p.rope) : 0), merge = kMergeRows * p.kvRank;
  s.size = attend > merge ? attend : merge;
  return s;
}

/// Heads of a task over one split: as many as leave two tasks for each thread.
inline int64_t mlaDecodeTaskHeads(int64_t splits, int64_t heads, int64_t threads) {
  int64_t most = kMaxTaskHeads;
  while (most > 1 && splits * ((heads + most - 1) / most) < 2 * threads) most /= 2;
  // Four heads at once cost little more than two: below that, only an idle thread is worth a cut.
  while (most < kHeadTile && splits * ((heads + 2 * most - 1) / (2 * most)) >= threads) most *= 2;
  return most;
}

}  // namespace longcat
