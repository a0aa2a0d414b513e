// Few rows of bf16 times FP8 weights.
#include "cuda/gemm_stream_fp8.cuh"

namespace longcat::cuda {
bool streamFp8(const CudaContext& context, const GemmProblem& p, int64_t rows) { return streamFp8Of<false>(context, p, rows); }
}  // namespace longcat::cuda
