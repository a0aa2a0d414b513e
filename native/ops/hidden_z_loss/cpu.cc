// hidden_z_loss on the CPU: a row at a time.
#include "ops/hidden_z_loss/params.h"

#include <math.h>

#include "cpu/math.h"

namespace longcat::LONGCAT_ISA {
namespace {

/// `sizes` has room for a row.
void rowLoss(const HiddenZLossParams& p, int64_t r, float* sizes) {
  const float* x = p.x + r * p.width;
  float* d = p.dX + r * p.width;
  float most = 0;
  for (int64_t k = 0; k < p.width; ++k) {
    sizes[k] = fabsf(x[k]);
    most = sizes[k] > most ? sizes[k] : most;
  }
  Vec total = zero();
  forLanes(p.width, [&](int64_t k, int n) {
    storeN(sizes + k, exp(sub(loadN(sizes + k, n), set1(most))), n);
    total = add(total, loadN(sizes + k, n));  // read back, so that lanes beyond the last add 0
  });
  const float all = sum(total), logSum = static_cast<float>(log(static_cast<double>(all)) + static_cast<double>(most));
  p.loss[r] = logSum * logSum;
  const float factor = *p.scale * 2 * logSum / all;
  for (int64_t k = 0; k < p.width; ++k) d[k] += x[k] == 0 ? 0 : copysignf(factor * sizes[k], x[k]);
}

}  // namespace

void hidden_z_loss(const void* params, const CpuContext& context) {
  const auto& p = *static_cast<const HiddenZLossParams*>(params);
  forRows(context, liveRows(p.rows, p.capacity), 8 * p.width, [&](int64_t first, int64_t end, int thread) {
    for (int64_t r = first; r < end; ++r) rowLoss(p, r, context.scratch<float>(thread));
  });
}

}  // namespace longcat::LONGCAT_ISA
