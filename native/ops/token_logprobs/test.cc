// token_logprobs against long double sums; infinities, NaN, rows without a target.
#include <cmath>
#include <limits>

#include "ops/harness.h"

using namespace longcat;

LONGCAT_TEST(token_logprobs) {
  for (int64_t vocabulary : {1, 7, 2048, 131}) {
    const int64_t rows = 5;
    Tensor logits = t.randomF32({rows + 2, vocabulary}, -20, 20), out = t.f32({rows + 2}), live = t.i32({1}, {5});
    std::vector<int32_t> targets(rows + 2, 0);
    for (int64_t r = 0; r < rows; ++r) targets[r] = static_cast<int32_t>(t.randomInteger(vocabulary));
    targets[3] = -1;
    Tensor target = t.i32({rows + 2}, targets);
    std::vector<float> values = t.floats(logits), want;
    for (int64_t r = 0; r < rows; ++r) {
      long double sum = 0;
      for (int64_t i = 0; i < vocabulary; ++i) sum += std::exp(static_cast<long double>(values[r * vocabulary + i]));
      want.push_back(targets[r] < 0 ? 0 : static_cast<float>(values[r * vocabulary + targets[r]] - std::log(sum)));
    }
    std::vector<float> first;
    for (Isa isa : t.isas()) {
      for (int threads : {1, 2, 3}) {
        t.run(isa, "token_logprobs", args({&logits, &target, &out, &live}), threads);
        std::vector<float> got = t.floats(out);
        t.expect(std::isnan(got[5]) && std::isnan(got[6]), "rows beyond the live ones are not written");
        got.resize(rows);
        t.expectClose("logprobs", got, want, 1e-6);
        if (first.empty()) first = got;
        t.expectSameBits("the same on every instruction set and thread count", got, first);
      }
    }
  }
}

LONGCAT_TEST(token_logprobs) {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  Tensor logits = t.f32({5, 3}, {0, -inf, 0, /**/ -inf, -inf, -inf, /**/ nan, 1, 1, /**/ nan, nan, nan, /**/ inf, 0, inf});
  Tensor target = t.i32({5}, {1, 0, 0, 2, 0}), out = t.f32({5}), rows = t.i32({1}, {5});
  t.run(Isa::plain, "token_logprobs", args({&logits, &target, &out, &rows}));
  t.expectSameBits("minus infinity and NaN become the finite floor", t.floats(out), {-9999, -9999, -9999, -9999, -9999});
  Tensor second = t.i32({5}, {0, 0, 1, 0, 1});
  t.run(Isa::plain, "token_logprobs", args({&logits, &second, &out, &rows}));
  t.expectClose("the others share what is left", {t.floats(out)[0], t.floats(out)[2]}, {std::log(0.5f), std::log(0.5f)}, 1e-6);
}
