// Attention of decode rows with keys as the rows of the matrix instructions: what a block of H heads has in shared memory.
#pragma once

#include "ops/mla_decode/sm90/block.cuh"

namespace longcat::cuda {
namespace {

template <int H>
struct alignas(1024) KeyRowsShared {
  static constexpr int kHeads = H;
  static constexpr int kQueryPanel = H * 64;
  Bf16 query[kPanels][kQueryPanel];
  Bf16 tile[2][kPanels][kPanelNumbers];
  Bf16 weights[2][kQueryPanel];        // of a tile: [head][key]
  float tileMost[2][4][H];             // of a warpgroup's tile: the maxima of its warps' keys
  float maximum[2][H], rescale[2][H];  // that a tile's weights are relative to, and what they do to the sums before
  float sums[2][2][4][H];              // of a unit's weights, by the unit's parity, warpgroup, warp
  Barrier queryFull, queryEmpty, full[2][kPanels];
  Barrier empty[2][kParts];
  Barrier weighed[2];  // a tile's weights and what goes with them are there
  Run run[2];
  Barrier runFull[2], runEmpty[2];

  /// One thread; then a barrier of the block.
  __device__ void beginBarriers() {
    initBarrier(&queryFull, 1);
    initBarrier(&queryEmpty, 8);  // a warp is one arrival
    for (int stage = 0; stage < 2; ++stage) {
      for (int panel = 0; panel < kPanels; ++panel) initBarrier(&full[stage][panel], 1);
      for (int part = 0; part < kParts; ++part) initBarrier(&empty[stage][part], 4);
      initBarrier(&weighed[stage], 4);
      initBarrier(&runFull[stage], 1);
      initBarrier(&runEmpty[stage], runReaders(false));
    }
    fenceBarriers();
  }
};
template <int H>
constexpr size_t kKeyRowsSharedBytes = sizeof(KeyRowsShared<H>) + 1024;

}  // namespace
}  // namespace longcat::cuda
