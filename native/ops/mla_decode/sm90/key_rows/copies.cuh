// Attention of decode rows with keys as the rows of the matrix instructions: queries and keys by the copy engine.
#pragma once

#include "cuda/dependent.cuh"
#include "ops/mla_decode/sm90/key_rows/block.cuh"
#include "ops/mla_decode/sm90/runs.cuh"

namespace longcat::cuda {
namespace {

/// One warp's part of the tiles.
template <class Shared>
class KeyCopies {
 public:
  __device__ KeyCopies(const MlaDecodeParams& p, const UnitMaps& maps, Shared& shared, Part part)
      : p_(p), maps_(maps), shared_(shared), part_(part), policy_(p.heads > Shared::kHeads ? usualPolicy() : readOncePolicy()) {
    const int lane = static_cast<int>(threadIdx.x & 31), panels = part == kRope ? 1 : kValuePanels / 2;
    pageKeys_ = p.blockSize < kTileKeys ? static_cast<int>(p.blockSize) : kTileKeys;
    panel_ = static_cast<int>(part) * (kValuePanels / 2) + lane % panels;
    page_ = lane / panels;  // one of the tile's, or behind them
  }

  /// A run's tiles, the first of which has the number `number`. What is in the cache is older than the launch before.
  __device__ void run(const Run& run, uint32_t number) const {
    const int32_t* blocks = p_.blockTables + run.slot * p_.maxBlocks;
    for (int32_t key = run.key; key < run.end; key += kTileKeys) tile(number++, blocks, key, run.end - key);
  }

 private:
  /// Keys [first, first + keys) of a row (at most 64), to the place of tile `number`. What lies behind the keys stays as it is, up to a page.
  __device__ void tile(uint32_t number, const int32_t* blocks, int32_t first, int32_t keys) const {
    const TilePlace at(number);
    const int pages = (min(keys, kTileKeys) + pageKeys_ - 1) / pageKeys_;
    int cacheRow = 0;
    if (page_ < pages) {
      const int32_t blockSize = static_cast<int32_t>(p_.blockSize), position = first + page_ * pageKeys_, block = position / blockSize;
      cacheRow = blocks[block] * blockSize + (position - block * blockSize);
    }
    wait(&shared_.empty[at.stage][part_], at.phase ^ 1);
    Barrier* full = &shared_.full[at.stage][panel_];
    if (page_ == 0) arriveExpecting(full, static_cast<uint32_t>(pages * pageKeys_ * 128));
    __syncwarp();
    if (page_ < pages) copyBox(shared_.tile[at.stage][panel_] + page_ * pageKeys_ * 64, &maps_.cache, full, 64 * panel_, cacheRow, policy_);
  }

  const MlaDecodeParams& p_;
  const UnitMaps& maps_;
  Shared& shared_;
  Part part_;
  int pageKeys_, panel_, page_;
  uint64_t policy_;
};

/// Finds the block's runs, tells the other warps, and has each run's query copied: [q_lat | q_rope] of the block's heads, where the last run's have been
/// read. They come from the launch before; all else is older. A whole warp calls.
template <class Shared>
__device__ __forceinline__ void planRunsAndQueries(const MlaDecodeParams& p, const UnitMaps& maps, const UnitCut& cut, Shared& shared) {
  const int lane = static_cast<int>(threadIdx.x & 31);
  const uint64_t policy = usualPolicy();
  uint32_t turn = 0;
  planRuns(p, cut, shared, [&](const Run& run) {
    if (turn == 0) awaitPrevious();
    wait(&shared.queryEmpty, (turn++ & 1) ^ 1);
    if (lane == 0) arriveExpecting(&shared.queryFull, sizeof(shared.query));
    __syncwarp();
    const int pair = run.row * static_cast<int>(p.heads) + run.head;
    if (lane < kValuePanels) copyBox(shared.query[lane], &maps.latent, &shared.queryFull, 64 * lane, pair, policy);
    if (lane == kRopePanel) copyBox(shared.query[kRopePanel], &maps.rope, &shared.queryFull, static_cast<int>(p.nope), pair, policy);
  });
}

}  // namespace
}  // namespace longcat::cuda
