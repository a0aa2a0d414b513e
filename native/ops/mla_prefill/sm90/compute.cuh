// Prompt attention on Hopper: the two warpgroups that compute. While one turns scores into weights, the tensor cores work for the other.
#pragma once

#include "ops/mla_prefill/sm90/rows.cuh"

namespace longcat::cuda::prefill {

/// The tensor cores' turns: barriers 1 and 2 of the block, by which each warpgroup lets the other go on.
__device__ __forceinline__ void awaitTurn(int group) { syncSome(1 + group, kGroups * kGroupThreads); }
__device__ __forceinline__ void giveTurn(int group) { arriveSome(2 - group, kGroups * kGroupThreads); }

/// Whether the job has rows for this warpgroup.
__device__ __forceinline__ bool hasRows(const Job& job, int group) {
  const int first = job.tile.base + group * kGroupRows;
  return first < job.tile.span.keys && first + kGroupRows > job.tile.span.firstPosition;
}

/// Tile `tile`'s scores begin when its keys are there.
__device__ __forceinline__ void awaitKeys(AttendBlock& block, uint32_t tile) {
  const TilePlace at(tile);
  wait(&block.keysFull[at.stage], at.phase);
}
__device__ __forceinline__ void awaitValues(AttendBlock& block, uint32_t tile) {
  const TilePlace at(tile);
  wait(&block.valuesFull[at.stage], at.phase);
}

/// The tile's scores are there, while kBehind chains that began later may go on.
template <int kBehind>
__device__ __forceinline__ void endScores(AttendBlock& block, uint32_t tile, Queries& queries, Scores& scores) {
  waitProducts<kBehind>();
  holdRegisters(scores);
  holdRegisters(queries);
  release(&block.keysEmpty[TilePlace(tile).stage]);
}

/// The tile's sums, if there are any under way, are there.
__device__ __forceinline__ void endSums(AttendBlock& block, bool any, uint32_t tile, Weights& weights, RowSums& rows) {
  waitProducts<0>();
  holdRegisters(rows.output);
  holdRegisters(weights);
  if (any) release(&block.valuesEmpty[TilePlace(tile).stage]);
}

/// A warpgroup's rows through the job's key tiles, the first of which is number `tile` of the rings. Its chain of products is laid out so that nothing
/// but them touches their registers until they are over: a tile's scores, then for each further tile its scores and the sums of the one before, then
/// the last one's sums. Sums are waited for at the head of the loop, which the compiler does not move: behind the weights, in one run of
/// instructions with them, it would wait before it computes them.
__device__ __forceinline__ void attendRows(const MlaPrefillParams& p, AttendBlock& block, const Job& job, int group, const Passed& passed) {
  const float scale = p.softmaxScale * CUDART_L2E_F;
  const bool turns = hasRows(job, group ^ 1);
  const int base = job.tile.base, toKey = job.tile.toKey, fromKey = job.tile.fromKey;
  uint32_t tile = passed.tiles;
  RowSums rows;
  Queries queries;
  Scores scores;
  Weights weights;
  float factor[2];
  beginRows(p, job, group, rows);

  wait(&block.queriesFull[group], passed.jobs % 2);
  loadQueries(block.queries[group], queries);
  release(&block.queriesEmpty[group]);
  awaitKeys(block, tile);
  beginScores(queries, block.keys[TilePlace(tile).stage], scores);
  endScores<0>(block, tile, queries, scores);
  if (fromKey == base) maskScores(group, scores);
  weigh(scale, scores, rows, factor);

  for (int key = fromKey;; ++tile) {
    endSums(block, key > fromKey, tile - 1, weights, rows);
    rescale(factor, rows);
    round(scores, weights);
    key += kTileKeys;
    if (key >= toKey) break;
    awaitKeys(block, tile + 1);
    if (turns) awaitTurn(group);
    beginScores(queries, block.keys[TilePlace(tile + 1).stage], scores);
    awaitValues(block, tile);
    beginSums<kTileKeys>(weights, block.values[TilePlace(tile).stage], rows);
    if (turns) giveTurn(group);
    endScores<1>(block, tile + 1, queries, scores);
    if (key == base) maskScores(group, scores);
    weigh(scale, scores, rows, factor);
  }

  awaitValues(block, tile);
  if (group == 0 && toKey > base) beginSums<kTileKeys / 2>(weights, block.values[TilePlace(tile).stage], rows);
  else beginSums<kTileKeys>(weights, block.values[TilePlace(tile).stage], rows);
  endSums(block, true, tile, weights, rows);
  endRows(p, job, group, rows);
}

/// Without rows a warpgroup lets the job's tiles pass, so that the rings go on.
__device__ __forceinline__ void passTiles(AttendBlock& block, int tiles, int group, const Passed& passed) {
  wait(&block.queriesFull[group], passed.jobs % 2);
  release(&block.queriesEmpty[group]);
  for (uint32_t tile = passed.tiles; tile < passed.tiles + tiles; ++tile) {
    awaitKeys(block, tile);
    release(&block.keysEmpty[TilePlace(tile).stage]);
    awaitValues(block, tile);
    release(&block.valuesEmpty[TilePlace(tile).stage]);
  }
}

__device__ __forceinline__ void compute(const MlaPrefillParams& p, AttendBlock& block, int group) {
  if (group == 1) giveTurn(group);
  for (Passed passed;; ++passed.jobs) {
    const JobPlace at(passed.jobs);
    wait(&block.jobFull[at.stage], at.phase);
    const Job& job = block.jobs[at.stage];
    if (job.tile.toKey == 0) break;
    const int tiles = (job.tile.toKey - job.tile.fromKey + kTileKeys - 1) / kTileKeys;
    if (hasRows(job, group)) attendRows(p, block, job, group, passed);
    else passTiles(block, tiles, group, passed);
    release(&block.jobEmpty[at.stage]);
    passed.tiles += tiles;
  }
  if (group == 0) awaitTurn(group);  // nothing is left at the barrier
}

}  // namespace longcat::cuda::prefill
