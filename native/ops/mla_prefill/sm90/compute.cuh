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

/// A warpgroup's rows through the job's key tiles. Its chain of products is laid out so that nothing but them touches their registers until they are
/// over: a tile's scores, then for each further tile its scores and the sums of the one before, then the last one's sums.
__device__ __forceinline__ void attendRows(const MlaPrefillParams& p, AttendBlock& block, const Job& job, int group, Places& at) {
  const float scale = p.softmaxScale * CUDART_L2E_F;
  const bool turns = hasRows(job, group ^ 1);
  const int base = job.tile.base, toKey = job.tile.toKey;
  int key = job.tile.fromKey;
  RowSums rows;
  Scores scores;
  Weights weights;
  float factor[2];
  beginRows(p, job, group, rows);

  wait(&block.queriesFull[group], at.queriesPhase);
  wait(&block.keysFull[at.keys.stage], at.keys.phase);
  beginScores(block.queries[group], block.keys[at.keys.stage], scores);
  waitProducts<0>();
  holdRegisters(scores);
  release(&block.keysEmpty[at.keys.stage]);
  at.keys.next();
  if (key == base) maskScores(group, scores);
  weigh(scale, scores, rows, factor);
  rescale(factor, rows);
  round(scores, weights);

  for (key += kTileKeys; key < toKey; key += kTileKeys) {
    wait(&block.keysFull[at.keys.stage], at.keys.phase);
    if (turns) awaitTurn(group);
      beginScores(block.queries[group], block.keys[at.keys.stage], scores);
    wait(&block.valuesFull[at.values.stage], at.values.phase);
    beginSums(weights, block.values[at.values.stage], rows);
    if (turns) giveTurn(group);
    waitProducts<1>();
    holdRegisters(scores);
    release(&block.keysEmpty[at.keys.stage]);
    at.keys.next();
    if (key == base) maskScores(group, scores);
    weigh(scale, scores, rows, factor);
    waitProducts<0>();
    holdRegisters(rows.output);
    holdRegisters(weights);
    release(&block.valuesEmpty[at.values.stage]);
    at.values.next();
    rescale(factor, rows);
    round(scores, weights);
  }

  release(&block.queriesEmpty[group]);
  at.queriesPhase ^= 1;
  wait(&block.valuesFull[at.values.stage], at.values.phase);
  beginSums(weights, block.values[at.values.stage], rows);
  waitProducts<0>();
  holdRegisters(rows.output);
  holdRegisters(weights);
  release(&block.valuesEmpty[at.values.stage]);
  at.values.next();
  endRows(p, job, group, rows);
}

/// Without rows a warpgroup lets the job's tiles pass, so that the rings go on.
__device__ __forceinline__ void passTiles(AttendBlock& block, const Job& job, int group, Places& at) {
  for (int key = job.tile.fromKey; key < job.tile.toKey; key += kTileKeys) {
    wait(&block.keysFull[at.keys.stage], at.keys.phase);
    release(&block.keysEmpty[at.keys.stage]);
    at.keys.next();
    wait(&block.valuesFull[at.values.stage], at.values.phase);
    release(&block.valuesEmpty[at.values.stage]);
    at.values.next();
  }
  wait(&block.queriesFull[group], at.queriesPhase);
  release(&block.queriesEmpty[group]);
  at.queriesPhase ^= 1;
}

__device__ __forceinline__ void compute(const MlaPrefillParams& p, AttendBlock& block, int group) {
  Places at;
  if (group == 1) giveTurn(group);
  for (;;) {
    wait(&block.jobFull[at.job.stage], at.job.phase);
    const Job& job = block.jobs[at.job.stage];
    if (job.tile.toKey == 0) break;
    if (hasRows(job, group)) attendRows(p, block, job, group, at);
    else passTiles(block, job, group, at);
    release(&block.jobEmpty[at.job.stage]);
    at.job.next();
  }
  if (group == 0) awaitTurn(group);  // nothing is left at the barrier
}

}  // namespace longcat::cuda::prefill
