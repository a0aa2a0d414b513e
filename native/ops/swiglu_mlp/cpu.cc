// swiglu_mlp on the CPU: the hidden rows by tiles of gate and up, then the product down.
#include "ops/swiglu_mlp/params.h"

#include "cpu/swiglu.h"

namespace longcat::LONGCAT_ISA {

void swiglu_mlp(const void* params, const CpuContext& context) {
  const auto& p = *static_cast<const SwigluMlpParams*>(params);
  const int64_t rows = liveRows(p.rows, p.capacity), width = p.gate.columns, ffn = p.gate.rows;
  const int64_t chunk = outputsPerTask(rows, ffn, 2 * width, context.pool.threads());
  forTasks(context, rows ? (ffn + chunk - 1) / chunk : 0, [&](int64_t task, int thread) {
    swigluHidden(p.x, width, nullptr, rows, p.gate, p.up, task * chunk, smaller(ffn, (task + 1) * chunk), p.hidden, ffn,
                 context.scratch<float>(thread));
  });
  gemmParallel(context, p.hidden, ffn, nullptr, rows, p.down, p.out, width);
}

}  // namespace longcat::LONGCAT_ISA
