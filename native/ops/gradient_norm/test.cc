// gradient_norm against float64: squares are all positive, 1e-6 of the norm.
#include "ops/harness.h"

using namespace longcat;

LONGCAT_TEST(gradient_norm) {
  for (int64_t count : {1, 37, 4096, 20000}) {
    const Tensor gradients = t.randomF32({count});
    double squares = 0;
    for (float g : t.floats(gradients)) squares += static_cast<double>(g) * g;
    const double norm = std::sqrt(squares);
    for (Isa isa : t.isasOf("gradient_norm")) {
      std::vector<float> first;
      for (int threads : {1, 2, 3}) {
        for (const double most : {0.0, norm / 4, norm * 4}) {
          const Tensor partial = t.f32({64}), out = t.f32({1}), factor = t.f32({1});
          t.run(isa, "gradient_norm", args({&gradients, &partial, &out, &factor}, {most}), threads);
          if (first.empty()) first = t.floats(out);
          t.expectClose("norm", t.floats(out), {static_cast<float>(norm)}, 1e-6);
          t.expectSameBits("norm on " + std::to_string(threads) + " threads", t.floats(out), first);
          t.expectClose("factor", t.floats(factor), {most > 0 && most < norm ? 0.25f : 1.0f}, 1e-6);
        }
      }
    }
  }
}
