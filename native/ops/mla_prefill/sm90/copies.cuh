// Prompt attention on Hopper: the warp that takes jobs and has their queries, keys and values copied.
#pragma once

#include "ops/mla_prefill/sm90/block.cuh"

namespace longcat::cuda::prefill {

/// Heads whose jobs are handed out together: enough for all blocks, few enough that their keys and values stay in the L2 cache. Within them
/// the longest jobs of a sequence come first.
__device__ inline int headsAtOnce(int tiles) { return max(1, (static_cast<int>(gridDim.x) + tiles - 1) / tiles); }

/// Job number `index`. Every lane calls.
__device__ inline Job jobAt(const MlaPrefillParams& p, const Live& live, const Round& round, int tiles, int index) {
  const int heads = static_cast<int>(p.heads);
  if (index >= tiles * heads) return {};
  const int together = headsAtOnce(tiles), first = index / (tiles * together) * together, inside = index - first * tiles;
  const int here = min(together, heads - first);
  return {queryTile<kJobRows>(p, live, round, inside / here), first + inside % here};
}

/// The copying warp's view of the kernel. Lane 0 asks for boxes, except for the cache's, of which each lane asks for one.
class Copier {
 public:
  __device__ Copier(const MlaPrefillParams& p, const AttendMaps& maps, AttendBlock& block)
      : p_(p), maps_(maps), block_(block), lane_(threadIdx.x & 31), again_(readAgainPolicy()), once_(readOncePolicy()) {}

  /// Jobs until there are no more.
  __device__ void run(const Round& round) {
    const Live live = liveOf(p_);
    const int tiles = countTiles(p_, live, QueryTiles<kJobRows>{round});
    for (;;) {
      int index = 0;
      if (lane_ == 0) index = atomicAdd(roundTickets(p_), 1);
      const Job job = jobAt(p_, live, round, tiles, __shfl_sync(kAllLanes, index, 0));
      hand(job);
      if (job.tile.toKey == 0) return;
      copy(job);
    }
  }

 private:
  __device__ void hand(const Job& job) {
    wait(&block_.jobEmpty[at_.job.stage], at_.job.phase ^ 1);
    if (lane_ == 0) {
      block_.jobs[at_.job.stage] = job;
      arrive(&block_.jobFull[at_.job.stage]);
    }
    at_.job.next();
  }

  /// In the order in which they are needed: scores of the next tile come before sums of this one.
  __device__ void copy(const Job& job) {
    int key = job.tile.fromKey;
    copyKeys(job, key);
    copyQueries(job);
    for (key += kTileKeys; key < job.tile.toKey; key += kTileKeys) {
      copyKeys(job, key);
      copyValues(job, key - kTileKeys);
    }
    copyValues(job, key - kTileKeys);
  }

  /// Rows that are not the job's come along, or zeros: nobody keeps what becomes of them.
  __device__ void copyQueries(const Job& job) {
    for (int g = 0; g < kGroups; ++g) {
      wait(&block_.queriesEmpty[g], at_.queriesPhase ^ 1);
      if (lane_ != 0) continue;
      arriveExpecting(&block_.queriesFull[g], sizeof(block_.queries[g]));
      const int row = job.tile.span.firstRow + job.tile.base - job.tile.span.firstPosition + g * kGroupRows;
      for (int panel = 0; panel < kDepthPanels; ++panel)
        copyBox(&block_.queries[g][panel], &maps_.queries, &block_.queriesFull[g], job.head * (kNope + kRope) + panel * 64, row, once_);
    }
    at_.queriesPhase ^= 1;
  }

  __device__ void copyKeys(const Job& job, int key) {
    const int row = static_cast<int>(job.tile.firstKey) + key, part = lane_ * maps_.ropeRows, stage = at_.keys.stage;
    int cacheRow = 0;
    if (part < kTileKeys) cacheRow = roundCacheRows(p_)[row + part];
    Barrier* full = &block_.keysFull[stage];
    wait(&block_.keysEmpty[stage], at_.keys.phase ^ 1);
    if (lane_ == 0) {
      arriveExpecting(full, sizeof(block_.keys[stage]));
      for (int panel = 0; panel < 2; ++panel) copyBox(&block_.keys[stage][panel], &maps_.expanded, full, job.head * (kNope + kValue) + panel * 64, row, again_);
    }
    if (part < kTileKeys) copyBox(block_.keys[stage][2].rows[part], &maps_.cache, full, static_cast<int>(p_.kvRank), cacheRow, again_);
    at_.keys.next();
  }

  __device__ void copyValues(const Job& job, int key) {
    const int row = static_cast<int>(job.tile.firstKey) + key, stage = at_.values.stage;
    Barrier* full = &block_.valuesFull[stage];
    wait(&block_.valuesEmpty[stage], at_.values.phase ^ 1);
    if (lane_ == 0) {
      arriveExpecting(full, sizeof(block_.values[stage]));
      for (int panel = 0; panel < kValuePanels; ++panel)
        copyBox(&block_.values[stage][panel], &maps_.expanded, full, job.head * (kNope + kValue) + kNope + panel * 64, row, again_);
    }
    at_.values.next();
  }

  const MlaPrefillParams& p_;
  const AttendMaps& maps_;
  AttendBlock& block_;
  const int lane_;
  const uint64_t again_, once_;
  Places at_;
};

}  // namespace longcat::cuda::prefill
