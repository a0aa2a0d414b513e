// Few rows, quantised in blocks of 128, times FP8 weights.
#include "cuda/gemm_stream_fp8.cuh"

namespace longcat::cuda {
bool streamFp8Quantised(const CudaContext& context, const GemmProblem& p, int64_t rows) { return streamFp8Of<true>(context, p, rows); }
}  // namespace longcat::cuda
