// swiglu_mlp on a GPU: gate and up in one product whose epilogue joins them, then the product down.
#include "cuda/gemm.h"
#include "ops/swiglu_mlp/params.h"

namespace longcat::cuda {

void swiglu_mlp(const void* params, const CudaContext& context) {
  const auto& p = *static_cast<const SwigluMlpParams*>(params);
  const int64_t width = p.gate.columns, ffn = p.gate.rows;
  GemmProblem hidden = denseProblem(p.x, width, p.activation, p.rows, p.capacity, p.gate, p.hidden, ffn, p.activation);
  hidden.weight2 = p.up;
  hidden.epilogue = Epilogue::swiglu;
  useAhead(hidden, p.out.data, width);  // not yet written
  gemm(context, hidden);
  GemmProblem down = denseProblem(p.hidden, ffn, p.activation, p.rows, p.capacity, p.down, p.out, width, p.activation);
  useAhead(down, p.hidden.data, ffn);  // nobody reads it afterwards
  gemm(context, down);
}

}  // namespace longcat::cuda
