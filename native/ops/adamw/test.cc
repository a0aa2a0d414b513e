// adamw against float64 over three steps: each number by itself, 2e-6.
#include "ops/gradcheck.h"

using namespace longcat;
using namespace longcat::gradcheck;

LONGCAT_TEST(adamw) {
  const double rate = 0.01, beta1 = 0.9, beta2 = 0.95, decay = 0.1, factor = 0.5;
  for (const double epsilon : {1e-16, 1e-3}) {
    for (int64_t count : {1, 37, 40000}) {
      const std::vector<float> weights = t.randomFloats(count), gradients = t.randomFloats(3 * count);
      Doubles w = doubles(weights), m(w.size()), v(w.size());
      for (int step = 1; step <= 3; ++step) {
        for (size_t i = 0; i < w.size(); ++i) {
          const double g = factor * gradients[static_cast<size_t>(step - 1) * w.size() + i];
          m[i] = beta1 * m[i] + (1 - beta1) * g;
          v[i] = beta2 * v[i] + (1 - beta2) * g * g;
          w[i] -= rate * (decay * w[i] + m[i] / (1 - std::pow(beta1, step)) / (std::sqrt(v[i] / (1 - std::pow(beta2, step))) + epsilon));
        }
      }
      for (Isa isa : t.isasOf("adamw")) {
        for (int threads : {1, 3}) {
          const Tensor weight = t.f32({count}, weights), momentum = t.f32({count}), variance = t.f32({count}), half = t.f32({1}, {static_cast<float>(factor)});
          for (int step = 1; step <= 3; ++step) {
            const Tensor gradient = t.f32({count}, {gradients.begin() + (step - 1) * count, gradients.begin() + step * count});
            t.run(isa, "adamw", args({&weight, &gradient, &momentum, &variance, &half}, {rate, beta1, beta2, epsilon, decay, static_cast<double>(step)}), threads);
          }
          t.expectClose("weights", t.floats(weight), std::vector<float>(w.begin(), w.end()), 2e-6);
          t.expectClose("m", t.floats(momentum), std::vector<float>(m.begin(), m.end()), 2e-6);
          t.expectClose("v", t.floats(variance), std::vector<float>(v.begin(), v.end()), 2e-6);
        }
      }
    }
  }
}

// Gradients far below 1e-8, as large models have them, still move a weight by the rate: the report's ε of 1e-16 (a ten-thousandth of them here).
LONGCAT_TEST(adamw) {
  for (Isa isa : t.isasOf("adamw")) {
    const Tensor weight = t.f32({2}), gradient = t.f32({2}, {1e-12f, 0}), m = t.f32({2}), v = t.f32({2}), one = t.f32({1}, {1});
    t.run(isa, "adamw", args({&weight, &gradient, &m, &v, &one}, {1, 0.9, 0.95, 1e-16, 0, 1}));
    t.expectClose("a full step, and none", t.floats(weight), {-1, 0}, 2e-4);
  }
}
