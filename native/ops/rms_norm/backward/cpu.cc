// rms_norm_backward on the CPU: each row's scale, then the weight's gradient by columns, then dsum row by row (it may lie over dout).
#include "ops/rms_norm/backward/params.h"

#include "cpu/norm_gradients.h"

namespace longcat::LONGCAT_ISA {

void rms_norm_backward(const void* params, const CpuContext& context) {
  const auto& p = *static_cast<const RmsNormBackwardParams*>(params);
  const int64_t rows = liveRows(p.rows, p.capacity), width = p.width;
  const NormBackward norm{width, p.weight.values(), p.scales};
  forRows(context, rows, width, [&](int64_t first, int64_t end, int) {
    for (int64_t r = first; r < end; ++r) p.scales[r] = rmsScale(p.sum + r * width, width, p.eps);
  });
  addNormWeightGradient(context, norm, {p.sum, width}, {p.dOut, width}, {p.dOut2, width}, rows, p.weight.gradient);
  forRows(context, rows, 2 * width, [&](int64_t first, int64_t end, int thread) {
    float* both = context.scratch<float>(thread);
    for (int64_t r = first; r < end; ++r) {
      const float* dOut = p.dOut + r * width;
      if (p.dOut2) {
        const float* dOut2 = p.dOut2 + r * width;
        forLanes(width, [&](int64_t k, int n) { storeN(both + k, add(loadN(dOut + k, n), loadN(dOut2 + k, n)), n); });
        dOut = both;
      }
      normGradientRow(norm, r, p.sum + r * width, dOut, p.dResidual ? p.dResidual + r * width : nullptr, p.dSum + r * width);
    }
  });
}

}  // namespace longcat::LONGCAT_ISA
