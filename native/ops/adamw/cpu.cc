// adamw on the CPU: number by number.
#include "ops/adamw/params.h"

#include "cpu/math.h"

namespace longcat::LONGCAT_ISA {

void adamw(const void* params, const CpuContext& context) {
  const auto& p = *static_cast<const AdamwParams*>(params);
  const Vec factor = set1(*p.factor), beta1 = set1(p.beta1), beta2 = set1(p.beta2), rest1 = set1(1.0f - p.beta1), rest2 = set1(1.0f - p.beta2);
  constexpr int64_t kChunk = 16 * 1024;
  forTasks(context, (p.count + kChunk - 1) / kChunk, [&](int64_t task, int) {
    const int64_t begin = task * kChunk;
    forLanes(smaller(kChunk, p.count - begin), [&](int64_t k, int n) {
      const int64_t i = begin + k;
      const Vec g = mul(factor, loadN(p.gradient + i, n)), w = loadN(p.weight + i, n);
      const Vec m = fma(beta1, loadN(p.momentum + i, n), mul(rest1, g)), v = fma(beta2, loadN(p.variance + i, n), mul(rest2, mul(g, g)));
      const Vec direction = div(mul(m, set1(p.momentumScale)), add(sqrt(mul(v, set1(p.varianceScale))), set1(p.epsilon)));
      storeN(p.momentum + i, m, n);
      storeN(p.variance + i, v, n);
      storeN(p.weight + i, sub(w, mul(set1(p.rate), fma(set1(p.decay), w, direction))), n);
    });
  });
}

}  // namespace longcat::LONGCAT_ISA
