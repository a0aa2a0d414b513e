// Prompt attention on Hopper: what a block has in shared memory, and how its warps tell each other what is there.
//
// One warp copies, two warpgroups compute. A job is 128 query positions of one sequence and one head; each warpgroup has 64 of them. Keys and
// values come in tiles of 128 through rings of two stages each. Everything is laid out as wgmma reads it: panels of 64 columns, rows of
// 128 bytes, 128-byte swizzle.
#pragma once

#include "cuda/hopper/copy.cuh"
#include "cuda/hopper/tensor_map.h"
#include "cuda/numbers.cuh"
#include "ops/mla_prefill/prompts.cuh"

namespace longcat::cuda::prefill {

constexpr int kNope = 128, kRope = 64, kValue = 128;   // the head's sizes
constexpr int kDepthPanels = 3, kValuePanels = 2;      // of 64 columns: kNope and kRope; kValue
constexpr int kGroups = 2, kGroupRows = 64, kJobRows = kGroups * kGroupRows;
constexpr int kStages = 2;  // of tiles
constexpr int kGroupThreads = 128, kThreads = (1 + kGroups) * kGroupThreads, kGroupWarps = kGroupThreads / 32;
constexpr int kCopierRegisters = 24, kComputeRegisters = 240;  // of a thread: all that a multiprocessor has
static_assert(kTileKeys == kJobRows && kJobRows == kQueryTile);  // a job's last key tile is the only one with keys beyond its rows

struct Panel64 {
  Bf16 rows[kGroupRows][64];
};
struct Panel128 {
  Bf16 rows[kTileKeys][64];
};

/// What the copying warp tells the others. `tile.toKey` 0: there is no more work.
struct Job {
  QueryTile tile;
  int head;
};

struct AttendBlock {
  Panel64 queries[kGroups][kDepthPanels];
  Panel128 keys[kStages][kDepthPanels];
  Panel128 values[kStages][kValuePanels];
  Job jobs[2];
  Barrier jobFull[2], jobEmpty[2];
  Barrier queriesFull[kGroups], queriesEmpty[kGroups];
  Barrier keysFull[kStages], keysEmpty[kStages];
  Barrier valuesFull[kStages], valuesEmpty[kStages];
};

/// The tensors as the copy engine knows them, in boxes of one panel (of ropeRows rows for the cache).
struct AttendMaps {
  TensorMap queries;    // [capacity, heads · 192]
  TensorMap expanded;   // [expandedRows, heads · 256], a head's nope keys, then its values
  TensorMap cache;      // [cacheRows, kvRank + rope]
  int ropeRows;
};

/// One thread.
__device__ inline void initBlock(AttendBlock& block) {
  for (int i = 0; i < 2; ++i) {
    initBarrier(&block.jobFull[i], 1);
    initBarrier(&block.jobEmpty[i], kGroups * kGroupWarps);
  }
  for (int g = 0; g < kGroups; ++g) {
    initBarrier(&block.queriesFull[g], 1);
    initBarrier(&block.queriesEmpty[g], kGroupWarps);
  }
  for (int s = 0; s < kStages; ++s) {
    initBarrier(&block.keysFull[s], 1);
    initBarrier(&block.keysEmpty[s], kGroups * kGroupWarps);
    initBarrier(&block.valuesFull[s], 1);
    initBarrier(&block.valuesEmpty[s], kGroups * kGroupWarps);
  }
  fenceBarriers();
}

/// Number `count` through a ring: its stage, and the parity of the phase in which that is full.
template <int kStages>
struct Place {
  int stage;
  uint32_t phase;
  __device__ __forceinline__ explicit Place(uint32_t count) : stage(static_cast<int>(count % kStages)), phase(count / kStages % 2) {}
};
using JobPlace = Place<2>;
using TilePlace = Place<kStages>;

/// Jobs and key tiles that a warp has been through. Those that compute and the one that copies go through the same ones in the same order.
struct Passed {
  uint32_t jobs = 0, tiles = 0;
};

/// This warp has used what `empty` is about. Every lane calls.
__device__ __forceinline__ void release(Barrier* empty) {
  __syncwarp();
  if ((threadIdx.x & 31) == 0) arrive(empty);
}

}  // namespace longcat::cuda::prefill
