// Many rows of bf16 times FP8 weights.
#include "cuda/gemm_tile_fp8.cuh"

namespace longcat::cuda {
bool tileFp8(const CudaContext& context, const GemmProblem& p, int64_t rows) { return tileFp8Of<false>(context, p, rows); }
}  // namespace longcat::cuda
