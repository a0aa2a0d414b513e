// Attention of decode rows on Hopper: what a block has in shared memory, with the barriers by which its warps tell each other what is there.
#pragma once

#include "cuda/hopper/copy.cuh"
#include "cuda/hopper/tensor_map.h"
#include "ops/mla_decode/merge_units.cuh"

namespace longcat::cuda {
namespace {

constexpr int kPanels = 9, kValuePanels = 8, kRopePanel = 8;
constexpr int kPanelNumbers = 64 * 64, kPanelBytes = kPanelNumbers * 2;
static_assert(kHopperRank == 64 * kValuePanels);
constexpr int kCodeGroups = kValuePanels / 2;  // of 128 latents, which have a scale in a packed cache
static_assert(kFp8Block == 128 && kHopperRank == kFp8Block * kCodeGroups);

/// Threads: the copies' warpgroup, two that multiply, and of a packed cache one that makes its codes bfloat16.
__host__ __device__ constexpr int unitThreads(bool packed) { return packed ? 512 : 384; }
/// Warps that follow the runs: all but the one that finds them.
__host__ __device__ constexpr int runReaders(bool packed) { return unitThreads(packed) / 32 - 1; }

/// The lower half of the values' panels, the upper half, the rope key's panel: each is empty when those who read it are through.
enum Part { kLower, kUpper, kRope, kParts };

struct alignas(1024) UnitShared {
  Bf16 query[kPanels][kPanelNumbers];
  Bf16 tile[2][kPanels][kPanelNumbers];
  float scales[2][kTileKeys][kCodeGroups];  // packed: of a tile's keys
  float maximum[2][kUnitHeads], rescale[2][kUnitHeads], sum[2][kUnitHeads];  // of a tile's weights
  Barrier queryFull, queryEmpty, full[2][kPanels], empty[2][kParts];
  Barrier codes[2][kCodeGroups];  // packed: a tile's codes, and with the first of them its scales; `full` is then what has been made of them
  Barrier weights[2];             // a tile's weights and what goes with them are there
  Run run[2];
  Barrier runFull[2], runEmpty[2];
};
constexpr size_t kUnitSharedBytes = sizeof(UnitShared) + 1024;  // it begins at a multiple of 1024

struct UnitMaps {
  TensorMap latent, rope;  // q_lat [T·heads, 512], q [T·heads, nope + 64]
  TensorMap cache;         // rows [slots, 576]; packed: codes [blocks, blockSize, 512]
  TensorMap ropeKeys;      // packed: [blocks, blockSize, 64]
};

/// Tiles are numbered over all runs that a block takes: their parity says which stage and which warpgroup has them.
struct TilePlace {
  int stage;
  uint32_t phase;
  __device__ explicit TilePlace(uint32_t number) : stage(static_cast<int>(number & 1)), phase(number >> 1 & 1) {}
};

}  // namespace
}  // namespace longcat::cuda
