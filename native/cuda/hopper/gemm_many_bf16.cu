// Many rows times bf16 weights on Hopper: which tile is worth its waves.
#include "cuda/hopper/gemm_many.cuh"
#include "cuda/hopper/gemm_many.h"

namespace longcat::cuda {
namespace {

/// A form of the kernel: rows of a tile and its weight rows. An H100 takes `step` ns for 64 numbers of k, products or traffic with the L2 cache, and
/// `item` ns more for a tile: fitted to the times of some thirty shapes, in which the choice costs at most 2 %
/// over the best form.
struct Tile {
  int rows, columns, step, item;
  template <bool kDual>
  bool launch(const CudaContext& context, const GemmProblem& p) const;
};
constexpr Tile kTiles[] = {{256, 256, 760, 5500}, {256, 192, 575, 4000}, {256, 128, 480, 4500}, {128, 256, 535, 2500}, {128, 128, 280, 2250}};

template <bool kDual>
bool Tile::launch(const CudaContext& context, const GemmProblem& p) const {
  using many::launchMany;
  using many::Shape;
  if (rows == 128) return columns == 256 ? launchMany<Shape<kDual, 64, 256>>(context, p) : launchMany<Shape<kDual, 64, 128>>(context, p);
  if (columns == 256) return launchMany<Shape<kDual, 128, 256>>(context, p);
  return columns == 192 ? launchMany<Shape<kDual, 128, 192>>(context, p) : launchMany<Shape<kDual, 128, 128>>(context, p);
}

/// Few large steps are best, unless the card's last wave is then nearly empty. Of groups only the mean size is known: up to 128 rows lower tiles waste less.
Tile tileFor(const CudaContext& context, const GemmProblem& p, int64_t rows) {
  if (p.groupStart) return rows > 128 ? kTiles[0] : kTiles[3];
  const int64_t clusters = std::max(1, context.multiprocessors / many::kCluster), steps = ceilDiv(depthOf(p), many::kDepth);
  const int64_t matrices = p.epilogue == Epilogue::swiglu ? 2 : 1;
  Tile best{};
  int64_t least = 0;
  for (const Tile& tile : kTiles) {
    const int64_t waves = ceilDiv(mostItems(p, tile.rows, tile.columns / matrices), clusters), cost = waves * (steps * tile.step + tile.item);
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
