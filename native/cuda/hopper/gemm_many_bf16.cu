// Many rows times bf16 weights on Hopper: which tile is worth its waves.
#include "cuda/hopper/gemm_many.cuh"
#include "cuda/hopper/gemm_many.h"

namespace longcat::cuda {
namespace {

/// Rows of a tile, its weight rows, and how many cycles a block's step of 64 numbers of k takes, about: its products, or its traffic with
/// shared memory where that takes longer.
struct Tile {
  int rows, columns, cycles;
};
constexpr Tile kTiles[] = {{256, 256, 1060}, {256, 192, 820}, {256, 128, 640}, {128, 256, 700}, {128, 128, 450}};

/// Few large steps are best, unless the card's last wave is then nearly empty.
Tile tileFor(const CudaContext& context, const GemmProblem& p, int64_t rows) {
  if (p.groupStart) return rows > 96 ? kTiles[0] : kTiles[3];
  const int64_t clusters = std::max(1, context.multiprocessors / many::kCluster), matrices = p.epilogue == Epilogue::swiglu ? 2 : 1;
  Tile best{};
  int64_t least = 0;
  for (const Tile& tile : kTiles) {
    const int64_t cost = ceilDiv(mostItems(p, tile.rows, tile.columns / matrices), clusters) * tile.cycles;
    if (best.rows == 0 || cost < least) best = tile, least = cost;
  }
  return best;
}

template <bool kDual>
bool launchTile(const CudaContext& context, const GemmProblem& p, const Tile& tile) {
  using many::launchMany;
  using many::Shape;
  if (tile.rows == 128) return tile.columns == 256 ? launchMany<Shape<kDual, 64, 256>>(context, p) : launchMany<Shape<kDual, 64, 128>>(context, p);
  if (tile.columns == 256) return launchMany<Shape<kDual, 128, 256>>(context, p);
  return tile.columns == 192 ? launchMany<Shape<kDual, 128, 192>>(context, p) : launchMany<Shape<kDual, 128, 128>>(context, p);
}

}  // namespace

bool manyBf16(const CudaContext& context, const GemmProblem& p, int64_t rows) {
  const Tile tile = tileFor(context, p, rows);
  return p.epilogue == Epilogue::swiglu ? launchTile<true>(context, p, tile) : launchTile<false>(context, p, tile);
}

}  // namespace longcat::cuda
