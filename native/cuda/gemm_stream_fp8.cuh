// Few rows times FP8 weights, for both formats.
#pragma once

#include "cuda/gemm_stream.cuh"
#include "cuda/gemm_variants.h"

namespace longcat::cuda {

template <bool kQuantised>
bool streamFp8Of(const CudaContext& context, const GemmProblem& p, int64_t rows) {
  using Format = Fp8Format<kQuantised>;
  if (p.epilogue == Epilogue::swiglu) {
    if (rows <= 8) return launchStream<Format, true, 1, 1>(context, p);
    return rows <= 16 && launchStream<Format, true, 1, 2>(context, p);
  }
  if (rows <= 8) return launchStream<Format, false, 1, 1>(context, p);
  return rows <= 16 && launchStream<Format, false, 2, 2>(context, p);
}

}  // namespace longcat::cuda
