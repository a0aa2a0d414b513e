// hidden_z_loss against float64, and its gradient against central differences: an exponential and a logarithm in float, 2e-6.
#include "ops/gradcheck.h"

using namespace longcat;
using namespace longcat::gradcheck;

LONGCAT_TEST(hidden_z_loss) {
  const int64_t T = 3;
  for (int64_t width : {1, 7, 16, 37}) {
    const Tensor x = t.randomF32({T, width}, -6, 6), scale = t.f32({1}, {0.125f}), rows = t.i32({1}, {T});
    const std::vector<float> before = t.randomFloats(T * width);
    Doubles values = doubles(t.floats(x));
    const auto lossOf = [&](int64_t r) {
      double total = 0;
      for (int64_t k = 0; k < width; ++k) total += std::exp(std::abs(values[static_cast<size_t>(r * width + k)]));
      return std::log(total) * std::log(total);
    };
    const auto loss = [&] { return 0.125 * (lossOf(0) + lossOf(1) + lossOf(2)); };
    const std::vector<float> wantLoss{static_cast<float>(lossOf(0)), static_cast<float>(lossOf(1)), static_cast<float>(lossOf(2))};
    const std::vector<float> wantD = plus(before, differences(values, loss));
    for (Isa isa : t.isasOf("hidden_z_loss")) {
      for (int threads : {1, 2, 3}) {
        const Tensor out = t.f32({T}), d = t.f32({T, width}, before);
        t.run(isa, "hidden_z_loss", args({&x, &scale, &out, &d, &rows}), threads);
        t.expectClose("loss", t.floats(out), wantLoss, 2e-6);
        t.expectClose("dx, added", t.floats(d), wantD, 2e-6);
      }
    }
  }
}

// The hidden states that it is there for: some thousands.
LONGCAT_TEST(hidden_z_loss) {
  const Tensor x = t.f32({1, 3}, {-20000, 0, 5}), scale = t.f32({1}, {1}), rows = t.i32({1}, {1});
  for (Isa isa : t.isasOf("hidden_z_loss")) {
    const Tensor loss = t.f32({1}), d = t.f32({1, 3});
    t.run(isa, "hidden_z_loss", args({&x, &scale, &loss, &d, &rows}));
    t.expectClose("loss", t.floats(loss), {4e8f}, 1e-6);
    t.expectClose("dx", t.floats(d), {-40000, 0, 0}, 1e-6);
  }
}
