// Products of many rows on Hopper (compute capability 9.0): what gemm() chooses from. The bits are those of the kernels for few rows.
#pragma once

#include <algorithm>

#include "cuda/gemm_work.cuh"
#include "cuda/launch.cuh"

namespace longcat::cuda {

/// `rows` of a group, about. False: not launched.
bool manyBf16(const CudaContext& context, const GemmProblem& p, int64_t rows);

/// Rows of a tile. A block's step of 64 numbers of k costs about so many cycles (its products, or its traffic with shared memory where that takes
/// longer); few large steps are best, unless the card's last wave is then nearly empty.
inline int manyRowTile(const CudaContext& context, const GemmProblem& p, int64_t rows, int64_t outputsOfCluster) {
  if (p.groupStart) return rows > 96 ? 256 : 128;
  constexpr struct { int rows, cycles; } kTiles[] = {{256, 1040}, {192, 832}, {128, 640}, {64, 448}};
  const int64_t clusters = std::max(1, context.multiprocessors / 2);
  int best = 0;
  int64_t least = 0;
  for (const auto& tile : kTiles) {
    const int64_t cost = ceilDiv(mostItems(p, tile.rows, outputsOfCluster), clusters) * tile.cycles;
    if (best == 0 || cost < least) best = tile.rows, least = cost;
  }
  return best;
}

}  // namespace longcat::cuda
