// Many rows times FP8 weights, for both formats.
#pragma once

#include "cuda/gemm_tile.cuh"
#include "cuda/gemm_variants.h"

namespace longcat::cuda {

template <bool kQuantised, bool kDual>
bool tileFp8With(const CudaContext& context, const GemmProblem& p, int64_t rows) {
  using Format = Fp8Format<kQuantised>;
  using Large = TileShape<Format, kDual, 4, 2, 2, 4, 3>;
  if (fills<Large>(context, p, rows) && launchTile<Large>(context, p)) return true;
  return launchTile<TileShape<Format, kDual, 2, 2, 2, 4, 4>>(context, p);
}

template <bool kQuantised>
bool tileFp8Of(const CudaContext& context, const GemmProblem& p, int64_t rows) {
  return p.epilogue == Epilogue::swiglu ? tileFp8With<kQuantised, true>(context, p, rows) : tileFp8With<kQuantised, false>(context, p, rows);
}

}  // namespace longcat::cuda
