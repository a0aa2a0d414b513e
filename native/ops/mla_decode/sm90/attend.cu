// Launches Hopper's attention of decode rows.
#include "ops/mla_decode/sm90/attend.cuh"

#include "cuda/launch.cuh"
#include "ops/mla_decode/sm90/attend.h"

namespace longcat::cuda {
namespace {

constexpr int64_t kLeastPage = 8;  // rows of a swizzled panel that repeat; a tile has at most one page for each of a warp's lanes and panels

/// Tiles are whole pages, or pages whole tiles.
bool pagesFit(int64_t blockSize) { return blockSize >= kLeastPage && (kTileKeys % blockSize == 0 || blockSize % kTileKeys == 0); }

UnitMaps mapsOf(const MlaDecodeParams& p) {
  const int64_t pairs = p.capacity * p.heads, queryWidth = p.nope + p.rope, cacheWidth = p.kvRank + p.rope;
  const int pageKeys = static_cast<int>(std::min<int64_t>(p.blockSize, kTileKeys));
  UnitMaps maps{matrixMap(p.qLatent.data, 2, pairs, p.kvRank, 2 * p.kvRank, kUnitHeads, 64, 128),
                matrixMap(p.q.data, 2, pairs, queryWidth, 2 * queryWidth, kUnitHeads, 64, 128), {}, {}};
  if (p.packedCache) {
    const PackedLatents layout{p.kvRank, p.rope, p.blockSize};
    const PackedRow<const uint8_t> first = p.packedRow(0);
    const int64_t blocks = p.cacheRows / p.blockSize, blockBytes = p.blockSize * layout.rowBytes();
    maps.cache = pagesMap(first.codes, blocks, p.blockSize, layout.codeBytes(), blockBytes, pageKeys);
    maps.ropeKeys = pagesMap(first.ropeKey, blocks, p.blockSize, layout.ropeBytes(), blockBytes, pageKeys);
  } else {
    maps.cache = matrixMap(p.cache.data, 2, p.cacheRows, cacheWidth, 2 * cacheWidth, pageKeys, 64, 128);
  }
  return maps;
}

/// Whether 32 bits can number the heads of all rows, and places in the line of work (units.cuh). Shares' ends lie within twice the line and a unit for each
/// share. A row's last unit counts as a whole one, which is at most as much again as its splits have tiles; and there are no more units than splits.
bool numbersFit(const MlaDecodeParams& p, const UnitCut& cut) {
  constexpr int64_t kSplitWork = 2 * (kSplitKeys / kTileKeys) * kTileWork + kBeginWork;
  const int64_t longest = std::min<int64_t>({p.maxBlocks * p.blockSize, p.maxSplits * kSplitKeys, INT32_MAX});
  const int64_t unit = unitKeys(cut.rule, static_cast<int32_t>(longest)) / kTileKeys * kTileWork + kBeginWork;
  return p.capacity * p.heads <= INT32_MAX && 2 * p.maxSplits * kSplitWork + cut.shares * unit <= INT32_MAX;
}

/// Groups of heads that go together.
int64_t groupsOf(const MlaDecodeParams& p) { return ceilDiv(p.heads, kUnitHeads); }

}  // namespace

UnitCut unitCut(const CudaContext& context, const MlaDecodeParams& p) {
  const int64_t shares = std::clamp<int64_t>(context.multiprocessors / groupsOf(p), 1, p.maxSplits);
  return {kUnitRule, static_cast<int32_t>(shares), !context.batchInvariant};
}

bool attendUnitsOnHopper(const CudaContext& context, const MlaDecodeParams& p) {
  if (context.capability != 90 || p.activation != DType::bf16 || p.kvRank != kHopperRank || p.rope != kHopperRope || !pagesFit(p.blockSize)) return false;
  const UnitCut cut = unitCut(context, p);
  if (!numbersFit(p, cut)) return false;
  const auto attend = p.packedCache ? attendUnits<true> : attendUnits<false>;
  launch(context, attend, dim3(static_cast<unsigned>(cut.shares * groupsOf(p))), unitThreads(p.packedCache), kUnitSharedBytes, p, mapsOf(p), cut);
  return true;
}

}  // namespace longcat::cuda
