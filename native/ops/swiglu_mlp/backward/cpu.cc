// swiglu_mlp_backward on the CPU: both products again, the gate row by row, then the five products of the gradients.
#include "ops/swiglu_mlp/backward/params.h"

#include "cpu/gemm.h"
#include "cpu/gemm_gradients.h"
#include "cpu/swiglu_gradients.h"

namespace longcat::LONGCAT_ISA {

void swiglu_mlp_backward(const void* params, const CpuContext& context) {
  const auto& p = *static_cast<const SwigluMlpBackwardParams*>(params);
  const int64_t rows = liveRows(p.rows, p.capacity), width = p.gate.weight.columns, ffn = p.gate.weight.rows;
  const Rows x{p.x, width}, dOut{p.dOut, width}, dGate{p.gateRows, ffn}, dUp{p.upRows, ffn}, hidden{p.hiddenRows, ffn};

  gemmParallel(context, p.x, width, nullptr, rows, p.gate.weight, p.gateRows, ffn);
  gemmParallel(context, p.x, width, nullptr, rows, p.up.weight, p.upRows, ffn);
  gemmNNParallel(context, dOut, rows, width, {p.down.values(), ffn}, ffn, {p.hiddenRows, ffn});
  forRows(context, rows, 4 * ffn, [&](int64_t first, int64_t end, int) {
    for (int64_t r = first; r < end; ++r) gateGradientRow(p.gateRows + r * ffn, p.upRows + r * ffn, p.hiddenRows + r * ffn, ffn);
  });

  gemmTNParallel(context, dOut, width, rows, hidden, ffn, {p.down.gradient, ffn, true});
  gemmTNParallel(context, dGate, ffn, rows, x, width, {p.gate.gradient, width, true});
  gemmTNParallel(context, dUp, ffn, rows, x, width, {p.up.gradient, width, true});
  gemmNNParallel(context, dGate, rows, ffn, {p.gate.values(), width}, width, {p.dX, width});
  gemmNNParallel(context, dUp, rows, ffn, {p.up.values(), width}, width, {p.dX, width, true});
}

}  // namespace longcat::LONGCAT_ISA
