// Many rows times bf16 weights.
#include "cuda/gemm_tile.cuh"
#include "cuda/gemm_variants.h"

namespace longcat::cuda {
namespace {

template <bool kDual>
bool tile(const CudaContext& context, const GemmProblem& p, int64_t rows) {
  using Large = TileShape<Bf16Format, kDual, 2, 4, 4, 4, 4>;
  if (fills<Large>(context, p, rows) && launchTile<Large>(context, p)) return true;
  return launchTile<TileShape<Bf16Format, kDual, 2, 2, 2, 4, 8>>(context, p);
}

}  // namespace

bool tileBf16(const CudaContext& context, const GemmProblem& p, int64_t rows) {
  return p.epilogue == Epilogue::swiglu ? tile<true>(context, p, rows) : tile<false>(context, p, rows);
}

}  // namespace longcat::cuda
