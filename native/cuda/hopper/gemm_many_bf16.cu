// Many rows times bf16 weights on Hopper: which tile is worth its waves.
#include "cuda/hopper/gemm_many.cuh"
#include "cuda/hopper/gemm_many.h"

namespace longcat::cuda {
namespace {

/// A form of the kernel: rows of a tile, weight rows of a block, blocks across. On an H100 it takes `step` ns for 64 numbers of k and `item` ns more for
/// the tile: products, or their traffic with the L2 cache where that takes longer; beginning, sums of lanes and results.
struct Tile {
  int rows, columns, across, step, item;
  template <bool kDual>
  bool launch(const CudaContext& context, const GemmProblem& p) const;
  int64_t clusters(const CudaContext& context) const;
};
constexpr Tile kTiles[] = {{256, 256, 1, 780, 4500}, {256, 192, 2, 510, 3000}, {256, 192, 1, 590, 3000}, {256, 128, 1, 490, 1500}, {128, 256, 1, 490, 3000}, {128, 128, 1, 360, 1500}};

template <bool kDual>
bool Tile::launch(const CudaContext& context, const GemmProblem& p) const {
  using many::launchMany;
  using many::Shape;
  if (rows == 128) return columns == 256 ? launchMany<Shape<kDual, 64, 256>>(context, p) : launchMany<Shape<kDual, 64, 128>>(context, p);
  if (columns == 256) return launchMany<Shape<kDual, 128, 256>>(context, p);
  if (columns == 128) return launchMany<Shape<kDual, 128, 128>>(context, p);
  return across == 2 ? launchMany<Shape<kDual, 128, 192, 2>>(context, p) : launchMany<Shape<kDual, 128, 192>>(context, p);
}

int64_t Tile::clusters(const CudaContext& context) const {
  using many::Shape;
  return across == 2 ? many::clustersOfCard<Shape<false, 128, 192, 2>>(context) : many::clustersOfCard<Shape<false, 128, 192>>(context);
}

/// Few large steps are best, unless the card's last wave is then nearly empty.
Tile tileFor(const CudaContext& context, const GemmProblem& p, int64_t rows) {
  if (p.groupStart) return rows > 96 ? kTiles[0] : kTiles[4];
  const int64_t steps = ceilDiv(depthOf(p), many::kDepth), matrices = p.epilogue == Epilogue::swiglu ? 2 : 1;
  Tile best{};
  int64_t least = 0;
  for (const Tile& tile : kTiles) {
    const int64_t waves = ceilDiv(mostItems(p, tile.rows, tile.across * tile.columns / matrices), tile.clusters(context));
    const int64_t cost = waves * (steps * tile.step + tile.item);
    if (best.rows == 0 || cost < least) best = tile, least = cost;
  }
  return best;
}

}  // namespace

bool manyBf16(const CudaContext& context, const GemmProblem& p, int64_t rows) {
  const Tile tile = tileFor(context, p, rows);
  return p.epilogue == Epilogue::swiglu ? tile.launch<true>(context, p) : tile.launch<false>(context, p);
}

}  // namespace longcat::cuda
