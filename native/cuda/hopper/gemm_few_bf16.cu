// Few rows times bf16 weights on Hopper.
#include "cuda/hopper/gemm_few.cuh"
#include "cuda/gemm_variants.h"

namespace longcat::cuda {
bool fewBf16(const CudaContext& context, const GemmProblem& p, int64_t rows) { return few::launchFew<few::Bf16Weights>(context, p, rows); }
}  // namespace longcat::cuda
