// linear_backward on the CPU: the two products.
#include "ops/linear/backward/params.h"

#include "cpu/gemm_gradients.h"

namespace longcat::LONGCAT_ISA {

void linear_backward(const void* params, const CpuContext& context) {
  const auto& p = *static_cast<const LinearBackwardParams*>(params);
  const int64_t rows = liveRows(p.rows, p.capacity), outputs = p.weight.weight.rows, inputs = p.weight.weight.columns;
  const Rows x{p.x, p.xStride}, dOut{p.dOut, p.dOutStride}, weight{p.weight.values(), inputs};
  gemmTNParallel(context, dOut, outputs, rows, x, inputs, {p.weight.gradient, inputs, true});
  if (p.bias.gradient) addColumnSums(context, dOut, rows, outputs, p.bias.gradient);
  gemmNNParallel(context, dOut, rows, outputs, weight, inputs, {p.dX, p.dXStride});
}

}  // namespace longcat::LONGCAT_ISA
