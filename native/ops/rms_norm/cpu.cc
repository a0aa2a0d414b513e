// rms_norm on the CPU: a row at a time, the sum first, then its norm.
#include "ops/rms_norm/params.h"

#include "cpu/math.h"

namespace longcat::LONGCAT_ISA {
namespace {

/// sum = (x + add) + add2, in place if need be.
void addRow(const RmsNormParams& p, int64_t r, float* sum) {
  const float* x = p.x + r * p.xStride;
  const float* a = p.add ? p.add + r * p.addStride : nullptr;
  const float* b = p.add2 ? p.add2 + r * p.add2Stride : nullptr;
  forLanes(p.width, [&](int64_t k, int n) {
    Vec v = loadN(x + k, n);
    if (a) v = add(v, loadN(a + k, n));
    if (b) v = add(v, loadN(b + k, n));
    storeN(sum + k, v, n);
  });
}

void normOfRow(const RmsNormParams& p, int64_t r) {
  float* out = p.out + r * p.outStride;
  const float* from = p.x + r * p.xStride;
  if (p.sum || p.add || p.add2) {
    float* sum = p.sum ? p.sum + r * p.sumStride : out;  // nobody wants the sum: it passes through the output row
    addRow(p, r, sum);
    from = sum;
  }
  normRow(from, p.weight, p.eps, out);
}

}  // namespace

void rms_norm(const void* params, const CpuContext& context) {
  const auto& p = *static_cast<const RmsNormParams*>(params);
  forRows(context, liveRows(p.rows, p.capacity), 2 * p.width, [&](int64_t first, int64_t end, int) {
    for (int64_t r = first; r < end; ++r) normOfRow(p, r);
  });
}

}  // namespace longcat::LONGCAT_ISA
