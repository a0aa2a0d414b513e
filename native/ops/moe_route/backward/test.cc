// moe_route_backward behind moe_route, against central differences in float64 with the forward's choice held: a softmax and two
// products in float, 5e-6.
#include "ops/gradcheck.h"

using namespace longcat;
using namespace longcat::gradcheck;

namespace {

struct Sizes {
  int64_t T, hidden, experts, all, topK;
};
const double kFactor = 2.5;

struct Case {
  Sizes s;
  Tensor h, classifier, bias, dWeights, dScore, rows;
  Case(OpContext& t, const Sizes& sizes) : s(sizes) {
    h = t.randomF32({s.T, s.hidden}), classifier = t.randomF32({s.all, s.hidden}), bias = t.randomF32({1, s.all}, -0.1f, 0.1f);
    dWeights = t.randomF32({s.T, s.topK}), dScore = t.randomF32({s.all}), rows = t.i32({1}, {static_cast<int32_t>(s.T)});
  }
};

struct Run {
  Tensor scores, ids, dH, dClassifier;
  Run(OpContext& t, const Case& c, Isa isa, int threads, bool balance, const std::vector<float>& before) {
    const Sizes& s = c.s;
    scores = t.f32({s.T, s.all}), ids = t.i32({s.T, s.topK}), dH = t.f32({s.T, s.hidden}, before), dClassifier = t.f32({s.all, s.hidden});
    const Tensor weights = t.f32({s.T, s.topK}), identity = t.f32({s.T}), ffn = t.i32({s.T}), start = t.i32({s.experts + 1}), plan = t.i32({s.T * s.topK}),
                 slots = t.i32({s.T, s.topK}), dLogits = t.f32({s.T, s.all});
    t.run(isa, "moe_route", args({&c.h, &c.classifier, &c.bias, &scores, &ids, &weights, &identity, &ffn, &start, &plan, &slots, &c.rows},
                                 {static_cast<double>(s.experts), kFactor}), threads);
    t.run(isa, "moe_route_backward",
          args({&c.h, &c.classifier, &dClassifier, &scores, &ids, &c.dWeights, balance ? &c.dScore : nullptr, &dH, &dLogits, &c.rows}, {kFactor}), threads);
  }
};

}  // namespace

LONGCAT_TEST(moe_route_backward) {
  for (const Sizes& s : {Sizes{1, 1, 1, 1, 1}, Sizes{4, 5, 3, 5, 2}, Sizes{6, 9, 20, 33, 4}}) {
    const Case c(t, s);
    const std::vector<float> before = t.randomFloats(s.T * s.hidden);
    for (const bool balance : {false, true}) {
      for (Isa isa : t.isasOf("moe_route_backward")) {
        const Run run(t, c, isa, 2, balance, before);
        Doubles h = doubles(t.floats(c.h)), classifier = doubles(t.floats(c.classifier));
        const Doubles dWeights = doubles(t.floats(c.dWeights)), dScore = doubles(t.floats(c.dScore));
        const std::vector<int32_t> ids = t.integers(run.ids);
        const auto loss = [&] {
          const Doubles logits = product(h, classifier, static_cast<size_t>(s.hidden));
          double sum = 0;
          for (int64_t r = 0; r < s.T; ++r) {
            double total = 0;
            for (int64_t i = 0; i < s.all; ++i) total += std::exp(logits[r * s.all + i]);
            const auto p = [&](int64_t i) { return std::exp(logits[r * s.all + i]) / total; };
            for (int64_t k = r * s.topK; k < (r + 1) * s.topK; ++k) sum += dWeights[k] * kFactor * p(ids[k]);
            for (int64_t i = 0; balance && i < s.all; ++i) sum += dScore[i] * p(i);
          }
          return sum;
        };
        t.expectClose("dh, added", t.floats(run.dH), plus(before, differences(h, loss)), 5e-6);
        t.expectClose("dclassifier", t.floats(run.dClassifier), differences(classifier, loss), 5e-6);
      }
    }
  }
}

LONGCAT_TEST(moe_route_backward) {
  const Case c(t, {200, 70, 24, 36, 5});
  for (Isa isa : t.isasOf("moe_route_backward")) {
    std::vector<float> first;
    for (int threads : {1, 2, 3}) {
      const Run run(t, c, isa, threads, true, {});
      const std::vector<float> all = joined(t, {&run.dH, &run.dClassifier});
      if (threads == 1) first = all;
      t.expectSameBits("both gradients on " + std::to_string(threads) + " threads", all, first);
    }
  }
}
