// Few rows of bf16 times FP8 weights on Hopper.
#include "cuda/hopper/gemm_few.cuh"
#include "cuda/gemm_variants.h"

namespace longcat::cuda {
bool fewFp8(const CudaContext& context, const GemmProblem& p, int64_t rows) { return few::launchFew<few::Fp8Weights>(context, p, rows); }
}  // namespace longcat::cuda
