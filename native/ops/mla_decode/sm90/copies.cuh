// Attention of decode rows on Hopper: queries and keys by the copy engine, one warp for each part of the tiles.
#pragma once

#include "cuda/dependent.cuh"
#include "ops/mla_decode/sm90/block.cuh"

namespace longcat::cuda {
namespace {

class Copies {
 public:
  __device__ Copies(const MlaDecodeParams& p, const UnitMaps& maps, UnitShared& shared, Part part)
      : p_(p), maps_(maps), shared_(shared), part_(part), lane_(threadIdx.x & 31), policy_(readOncePolicy()) {
    pageKeys_ = p.blockSize < kTileKeys ? static_cast<int>(p.blockSize) : kTileKeys;
    const int panels = part == kRope ? 1 : kValuePanels / 2;
    panel_ = static_cast<int>(part) * (kValuePanels / 2) + lane_ % panels;
    page_ = lane_ / panels;  // one of the tile's, or behind them
  }

  /// A run's query and tiles, the first of which has the number `number`. The query comes from the launch before; what is in the cache is older.
  __device__ void run(const Run& run, uint32_t turn, uint32_t number) const {
    const int32_t* blocks = p_.blockTables + p_.rowSlot[run.row] * p_.maxBlocks;
    int32_t key = run.key;
    tile(number++, blocks, key, run.end - key);
    if (part_ == kRope) query(turn, run.row, run.head);
    while ((key += kTileKeys) < run.end) tile(number++, blocks, key, run.end - key);
  }

 private:
  /// [q_lat | q_rope] of 64 heads, where the last run's have been read.
  __device__ void query(uint32_t turn, int32_t row, int32_t head) const {
    if (turn == 0) awaitPrevious();
    wait(&shared_.queryEmpty, (turn & 1) ^ 1);
    if (lane_ == 0) arriveExpecting(&shared_.queryFull, kPanels * kPanelBytes);
    __syncwarp();
    const int pair = row * static_cast<int>(p_.heads) + head;
    if (lane_ < kValuePanels) copyBox(shared_.query[lane_], &maps_.latent, &shared_.queryFull, 64 * lane_, pair, policy_);
    if (lane_ == kRopePanel) copyBox(shared_.query[kRopePanel], &maps_.rope, &shared_.queryFull, static_cast<int>(p_.nope), pair, policy_);
  }

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
  UnitShared& shared_;
  Part part_;
  int lane_, pageKeys_, panel_, page_;
  uint64_t policy_;
};

}  // namespace
}  // namespace longcat::cuda
