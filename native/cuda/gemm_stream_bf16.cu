// Few rows times bf16 weights.
#include "cuda/gemm_stream.cuh"
#include "cuda/gemm_variants.h"

namespace longcat::cuda {

bool streamBf16(const CudaContext& context, const GemmProblem& p, int64_t rows) {
  if (p.epilogue == Epilogue::swiglu) {
    if (rows <= 8) return launchStream<Bf16Format, true, 1, 1>(context, p);
    if (rows <= 16) return launchStream<Bf16Format, true, 1, 2>(context, p);
    return rows <= 32 && launchStream<Bf16Format, true, 1, 4>(context, p);
  }
  if (rows <= 8) return launchStream<Bf16Format, false, 1, 1>(context, p);
  if (rows <= 16) return launchStream<Bf16Format, false, 1, 2>(context, p);
  return rows <= 32 && launchStream<Bf16Format, false, 2, 4>(context, p);
}

}  // namespace longcat::cuda
