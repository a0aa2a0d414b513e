// Launches Hopper's attention of decode rows.
#include "ops/mla_decode/sm90/attend.cuh"

#include "cuda/launch.cuh"
#include "ops/mla_decode/sm90/attend.h"

namespace longcat::cuda {
namespace {

constexpr int64_t kLeastPage = 8;  // rows of a swizzled panel that repeat; a tile has at most one page for each of a warp's lanes and panels

/// Tiles are whole pages, or pages whole tiles.
bool pagesFit(int64_t blockSize) { return blockSize >= kLeastPage && (kTileKeys % blockSize == 0 || blockSize % kTileKeys == 0); }

/// The cache is described with as many rows as there can be; the block tables say which there are.
UnitMaps mapsOf(const MlaDecodeParams& p) {
  const int64_t pairs = p.capacity * p.heads, queryWidth = p.nope + p.rope, cacheWidth = p.kvRank + p.rope;
  const int pageKeys = static_cast<int>(std::min<int64_t>(p.blockSize, kTileKeys));
  return {matrixMap(p.qLatent.data, 2, pairs, p.kvRank, 2 * p.kvRank, kUnitHeads, 64, 128),
          matrixMap(p.q.data, 2, pairs, queryWidth, 2 * queryWidth, kUnitHeads, 64, 128),
          matrixMap(p.cache.data, 2, INT32_MAX, cacheWidth, 2 * cacheWidth, pageKeys, 64, 128)};
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
  launch(context, attendUnits, dim3(static_cast<unsigned>(cut.shares * groupsOf(p))), kUnitThreads, kUnitSharedBytes, p, mapsOf(p), cut);
  return true;
}

}  // namespace longcat::cuda
