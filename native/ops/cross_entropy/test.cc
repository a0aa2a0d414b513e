// cross_entropy against float64, and its gradient against central differences: a softmax in float, 2e-6.
#include "ops/gradcheck.h"

using namespace longcat;
using namespace longcat::gradcheck;

LONGCAT_TEST(cross_entropy) {
  const int64_t R = 4;
  for (int64_t vocabulary : {1, 7, 16, 37}) {
    const std::vector<int32_t> targets{0, -1, static_cast<int32_t>(vocabulary - 1), static_cast<int32_t>(vocabulary / 2)};
    const Tensor logits = t.randomF32({R, vocabulary}, -9, 9), target = t.i32({R}, targets), scale = t.f32({1}, {0.25f}), rows = t.i32({1}, {R});
    Doubles values = doubles(t.floats(logits));
    const auto lossOf = [&](int64_t r) {
      if (targets[static_cast<size_t>(r)] < 0) return 0.0;
      double total = 0;
      for (int64_t i = 0; i < vocabulary; ++i) total += std::exp(values[static_cast<size_t>(r * vocabulary + i)]);
      return std::log(total) - values[static_cast<size_t>(r * vocabulary + targets[static_cast<size_t>(r)])];
    };
    const auto loss = [&] { return 0.25 * (lossOf(0) + lossOf(1) + lossOf(2) + lossOf(3)); };
    std::vector<float> wantLoss;
    for (int64_t r = 0; r < R; ++r) wantLoss.push_back(static_cast<float>(lossOf(r)));
    const std::vector<float> wantD = differences(values, loss);
    for (Isa isa : t.isasOf("cross_entropy")) {
      for (int threads : {1, 2, 3}) {
        const Tensor out = t.f32({R}), d = t.f32({R, vocabulary}), inPlace = t.f32({R, vocabulary}, t.floats(logits)), alone = t.f32({R});
        t.run(isa, "cross_entropy", args({&logits, &target, &scale, &out, &d, &rows}), threads);
        t.expectClose("loss", t.floats(out), wantLoss, 2e-6);
        t.expectClose("dlogits", t.floats(d), wantD, 2e-6);
        t.run(isa, "cross_entropy", args({&inPlace, &target, &scale, &alone, &inPlace, &rows}), threads);
        t.expectSameBits("dlogits in place of the logits", t.floats(inPlace), t.floats(d));
        t.run(isa, "cross_entropy", args({&logits, &target, &scale, &alone, nullptr, &rows}), threads);
        t.expectSameBits("the loss alone", t.floats(alone), t.floats(out));
      }
    }
  }
}

// Logits far from 0 neither overflow nor vanish.
LONGCAT_TEST(cross_entropy) {
  const Tensor logits = t.f32({2, 3}, {1000, 999, -1000, -1000, -1001, -3000}), targets = t.i32({2}, {1, 1}), scale = t.f32({1}, {1}), rows = t.i32({1}, {2});
  const auto near = [](double e) { return static_cast<float>(e); };
  const double p = 1 / (1 + std::exp(1.0)), lost = std::log1p(std::exp(1.0));
  for (Isa isa : t.isasOf("cross_entropy")) {
    const Tensor loss = t.f32({2}), d = t.f32({2, 3});
    t.run(isa, "cross_entropy", args({&logits, &targets, &scale, &loss, &d, &rows}));
    t.expectClose("loss", t.floats(loss), {near(lost), near(lost)}, 1e-6);
    t.expectClose("dlogits", t.floats(d), {near(1 - p), near(p - 1), 0, near(1 - p), near(p - 1), 0}, 1e-6);
  }
}
