// gradient_norm on the CPU: a task a chunk, then their sum.
#include "ops/gradient_norm/params.h"

#include "cpu/math.h"

namespace longcat::LONGCAT_ISA {

void gradient_norm(const void* params, const CpuContext& context) {
  const auto& p = *static_cast<const GradientNormParams*>(params);
  const int64_t numbers = (p.count + p.chunks - 1) / p.chunks;  // of a chunk; the last ones may be empty
  forTasks(context, p.chunks, [&](int64_t chunk, int) {
    const int64_t begin = smaller(p.count, chunk * numbers);
    p.partial[chunk] = sumOfSquares(p.gradients + begin, smaller(numbers, p.count - begin));
  });
  double total = 0;
  for (int64_t chunk = 0; chunk < p.chunks; ++chunk) total += static_cast<double>(p.partial[chunk]);
  const double norm = __builtin_sqrt(total);
  *p.norm = static_cast<float>(norm);
  *p.factor = p.most > 0 && norm > p.most ? static_cast<float>(p.most / norm) : 1.0f;
}

}  // namespace longcat::LONGCAT_ISA
