// Many rows, quantised in blocks of 128, times FP8 weights.
#include "cuda/gemm_tile_fp8.cuh"

namespace longcat::cuda {
bool tileFp8Quantised(const CudaContext& context, const GemmProblem& p, int64_t rows) { return tileFp8Of<true>(context, p, rows); }
}  // namespace longcat::cuda
