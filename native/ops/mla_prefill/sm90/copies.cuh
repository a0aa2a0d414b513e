// Prompt attention on Hopper: the warp that takes jobs and has their queries, keys and values copied.
#pragma once

#include "ops/mla_prefill/sm90/block.cuh"

namespace longcat::cuda::prefill {

/// Heads are handed out in equal parts, one after another, and within a part the longest jobs of a sequence first: a part has about two jobs
/// for each block, so that its keys and values stay in the L2 cache and the last part's short jobs even out when the blocks end.
__device__ inline int headParts(int heads, int tiles) {
  return min(heads, max(1, heads * tiles / (2 * static_cast<int>(gridDim.x))));
}

/// Job number `index`.
__device__ inline Job jobAt(const MlaPrefillParams& p, int index) {
  const int heads = static_cast<int>(p.heads), tiles = *roundQueryTileCount(p);
  if (index >= tiles * heads) return {};
  const int parts = headParts(heads, tiles), part = ((index / tiles + 1) * parts - 1) / heads;
  const int first = part * heads / parts, together = (part + 1) * heads / parts - first, inside = index - first * tiles;
  return {roundQueryTiles(p)[inside / together], first + inside % together};
}

/// The copying warp's view of the kernel. Lane 0 asks for boxes, except for the cache's, of which each lane asks for one.
class Copier {
 public:
  __device__ Copier(const MlaPrefillParams& p, const AttendMaps& maps, AttendBlock& block) : p_(p), maps_(maps), block_(block), lane_(threadIdx.x & 31) {}

  /// Jobs until there are no more.
  __device__ void run() {
    for (;; ++passed_.jobs) {
      const JobPlace at(passed_.jobs);
      Job& job = block_.jobs[at.stage];
      wait(&block_.jobEmpty[at.stage], at.phase ^ 1);
      if (lane_ == 0) {
        job = jobAt(p_, atomicAdd(roundTickets(p_), 1));
        arrive(&block_.jobFull[at.stage]);
      }
      __syncwarp();
      if (job.tile.toKey == 0) return;
      copy(job);
    }
  }

 private:
  /// In the order in which they are needed: scores of the next tile come before sums of this one.
  __device__ void copy(const Job& job) {
    const int row = static_cast<int>(job.tile.firstKey), end = row + job.tile.toKey;
    int key = row + job.tile.fromKey;
    copyKeys(job.head, key);
    copyQueries(job);
#pragma unroll 1
    for (key += kTileKeys; key < end; key += kTileKeys) {
      ++passed_.tiles;
      copyKeys(job.head, key);
      copyValues(job.head, key - kTileKeys, passed_.tiles - 1);
    }
    copyValues(job.head, key - kTileKeys, passed_.tiles);
    ++passed_.tiles;
  }

  /// Rows that are not the job's come along, or zeros: nobody keeps what becomes of them.
  __device__ void copyQueries(const Job& job) {
    const uint32_t phase = passed_.jobs % 2;
    int row = job.tile.span.firstRow + job.tile.base - job.tile.span.firstPosition;
    for (int g = 0; g < kGroups; ++g, row += kGroupRows) {
      wait(&block_.queriesEmpty[g], phase ^ 1);
      if (lane_ != 0) continue;
      arriveExpecting(&block_.queriesFull[g], sizeof(block_.queries[g]));
      for (int panel = 0; panel < kDepthPanels; ++panel)
        copyBox(&block_.queries[g][panel], &maps_.queries, &block_.queriesFull[g], job.head * (kNope + kRope) + panel * 64, row, readOncePolicy());
    }
  }

  /// Tile number passed_.tiles, from row `row` of the round's keys on.
  __device__ void copyKeys(int head, int row) {
    __syncwarp();  // no lane is a whole phase behind
    const TilePlace at(passed_.tiles);
    const int part = lane_ * maps_.ropeRows;
    int cacheRow = 0;
    if (part < kTileKeys) cacheRow = roundCacheRows(p_)[row + part];
    Barrier* full = &block_.keysFull[at.stage];
    auto& keys = block_.keys[at.stage];
    wait(&block_.keysEmpty[at.stage], at.phase ^ 1);
    if (lane_ == 0) {
      arriveExpecting(full, sizeof(keys));
      for (int panel = 0; panel < kDepthPanels - 1; ++panel)
        copyBox(&keys[panel], &maps_.expanded, full, head * (kNope + kValue) + panel * 64, row, readAgainPolicy());
    }
    if (part < kTileKeys) copyBox(keys[kDepthPanels - 1].rows[part], &maps_.cache, full, static_cast<int>(p_.kvRank), cacheRow, readAgainPolicy());
  }

  __device__ void copyValues(int head, int row, uint32_t tile) {
    const TilePlace at(tile);
    wait(&block_.valuesEmpty[at.stage], at.phase ^ 1);
    if (lane_ != 0) return;
    Barrier* full = &block_.valuesFull[at.stage];
    arriveExpecting(full, sizeof(block_.values[at.stage]));
    for (int panel = 0; panel < kValuePanels; ++panel)
      copyBox(&block_.values[at.stage][panel], &maps_.expanded, full, head * (kNope + kValue) + kNope + panel * 64, row, readAgainPolicy());
  }

  const MlaPrefillParams& p_;
  const AttendMaps& maps_;
  AttendBlock& block_;
  const int lane_;
  Passed passed_;
};

}  // namespace longcat::cuda::prefill
