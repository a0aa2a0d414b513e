// Attention of decode rows on Hopper: queries and keys by the copy engine, one warp for each part of the tiles.
#pragma once

#include "cuda/dependent.cuh"
#include "ops/mla_decode/sm90/block.cuh"

namespace longcat::cuda {
namespace {

/// A lane copies a piece of one page of a tile: a panel, or of a packed cache a group of codes, the rope keys or the scales.
enum PackedPiece { kPackedRope = kCodeGroups, kPackedScales };
constexpr int kMostPages = kTileKeys / 8;

template <bool PACKED>
class Copies {
 public:
  __device__ Copies(const MlaDecodeParams& p, const UnitMaps& maps, UnitShared& shared, Part part)
      : p_(p), maps_(maps), shared_(shared), part_(part), lane_(threadIdx.x & 31), policy_(readOncePolicy()) {
    pageKeys_ = p.blockSize < kTileKeys ? static_cast<int>(p.blockSize) : kTileKeys;
    const int pieces = part == kRope ? 1 : (PACKED ? kCodeGroups : kValuePanels) / 2;
    piece_ = static_cast<int>(part) * ((PACKED ? kCodeGroups : kValuePanels) / 2) + lane_ % pieces;
    page_ = lane_ / pieces;  // one of the tile's, or behind them
    if (PACKED && part == kLower && page_ >= kMostPages) piece_ = kPackedScales, page_ = lane_ - pieces * kMostPages;
  }

  /// A run's query and tiles, the first of which has the number `number`. The query comes from the launch before; what is in the cache is older.
  __device__ void run(const Run& run, uint32_t turn, uint32_t number) const {
    const int32_t* blocks = p_.blockTables + p_.rowSlot[run.row] * p_.maxBlocks;
    int32_t key = run.key;
    prefetch(blocks, key + kTileKeys, run.end);
    tile(number++, blocks, key, run.end - key);
    if (part_ == kRope) query(turn, run.row, run.head);
    while ((key += kTileKeys) < run.end) {
      prefetch(blocks, key + kTileKeys, run.end);
      tile(number++, blocks, key, run.end - key);
    }
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

  /// A page of a tile in the cache.
  struct Page {
    int32_t block, place;
  };
  __device__ __forceinline__ Page pageAt(const int32_t* blocks, int32_t first, int page) const {
    const int32_t blockSize = static_cast<int32_t>(p_.blockSize), position = first + page * pageKeys_, block = position / blockSize;
    return {blocks[block], position - block * blockSize};
  }
  __device__ __forceinline__ PackedRow<const uint8_t> firstRow(Page page) const {
    return PackedLatents{kHopperRank, kHopperRope, p_.blockSize}.at(static_cast<const uint8_t*>(p_.cache.data), page.block, page.place);
  }
  __device__ __forceinline__ int pagesOf(int32_t keys) const { return (min(keys, kTileKeys) + pageKeys_ - 1) / pageKeys_; }

  /// Keys [first, first + keys) of a row (at most 64), to the place of tile `number`. What lies behind the keys stays as it is, up to a page.
  __device__ void tile(uint32_t number, const int32_t* blocks, int32_t first, int32_t keys) const {
    const TilePlace at(number);
    const int pages = pagesOf(keys);
    Page page{0, 0};
    if (page_ < pages) page = pageAt(blocks, first, page_);
    wait(&shared_.empty[at.stage][part_], at.phase ^ 1);
    if constexpr (PACKED) copyPacked(at, page, pages);
    else copyPlain(at, page, pages);
  }

  __device__ __forceinline__ void copyPlain(TilePlace at, Page page, int pages) const {
    Barrier* full = &shared_.full[at.stage][piece_];
    if (page_ == 0) arriveExpecting(full, static_cast<uint32_t>(pages * pageKeys_ * 128));
    __syncwarp();
    const int cacheRow = page.block * static_cast<int32_t>(p_.blockSize) + page.place;
    if (page_ < pages) copyBox(shared_.tile[at.stage][piece_] + page_ * pageKeys_ * 64, &maps_.cache, full, 64 * piece_, cacheRow, policy_);
  }

  /// Codes go to where the second of the panels will be that are made of them (unpacker.cuh).
  __device__ __forceinline__ void copyPacked(TilePlace at, Page page, int pages) const {
    constexpr uint32_t kScaleBytes = kCodeGroups * sizeof(float);
    const bool isCodes = piece_ < kCodeGroups;
    Barrier* full = piece_ == kPackedRope ? &shared_.full[at.stage][kRopePanel] : &shared_.codes[at.stage][isCodes ? piece_ : 0];
    if (page_ == 0 && piece_ != kPackedScales) arriveExpecting(full, static_cast<uint32_t>(pages * pageKeys_) * (128 + (piece_ == 0 ? kScaleBytes : 0)));
    __syncwarp();
    if (page_ >= pages) return;
    if (piece_ == kPackedScales) {
      copyBytes(shared_.scales[at.stage][page_ * pageKeys_], firstRow(page).scales, static_cast<uint32_t>(pageKeys_) * kScaleBytes, full);
    } else {
      Bf16* const to = shared_.tile[at.stage][isCodes ? 2 * piece_ + 1 : kRopePanel] + page_ * pageKeys_ * 64;
      copyPageBox(to, isCodes ? &maps_.cache : &maps_.ropeKeys, full, isCodes ? 128 * piece_ : 0, page.place, page.block, policy_);
    }
  }

  /// A packed tile takes no longer to come than to be used: the one after the next is on its way to the L2 cache before there is room for it.
  __device__ __forceinline__ void prefetch(const int32_t* blocks, int32_t first, int32_t end) const {
    if (!PACKED || part_ != kRope || first >= end) return;
    const int part = lane_ / kMostPages, index = lane_ % kMostPages;
    if (part == 3 || index >= pagesOf(end - first)) return;
    const PackedRow<const uint8_t> row = firstRow(pageAt(blocks, first, index));
    const uint32_t keys = static_cast<uint32_t>(pageKeys_);
    if (part == 0) prefetchBytes(row.codes, keys * kHopperRank);
    else if (part == 1) prefetchBytes(row.ropeKey, keys * 2 * kHopperRope);
    else prefetchBytes(row.scales, keys * kCodeGroups * sizeof(float));
  }

  const MlaDecodeParams& p_;
  const UnitMaps& maps_;
  UnitShared& shared_;
  Part part_;
  int lane_, pageKeys_, piece_, page_;
  uint64_t policy_;
};

}  // namespace
}  // namespace longcat::cuda
