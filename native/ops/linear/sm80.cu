// linear on a GPU: one product, the bias in its epilogue.
#include "cuda/gemm.h"
#include "ops/linear/params.h"

namespace longcat::cuda {

void linear(const void* params, const CudaContext& context) {
  const auto& p = *static_cast<const LinearParams*>(params);
  GemmProblem problem = denseProblem(p.x, p.xStride, p.activation, p.rows, p.capacity, p.weight, p.out, p.outStride, p.outDtype);
  problem.rowIndex = p.rowIndex;
  problem.bias = p.bias;
  useAhead(problem, p.scratch.data, p.scratchStride);
  gemm(context, problem);
}

}  // namespace longcat::cuda
