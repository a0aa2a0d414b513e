// balance_loss against the report's equations in float64, and its gradient against central differences in the probabilities, the
// choice held. Sums are in float64 and results rounded once: 1e-6.
#include "ops/gradcheck.h"

using namespace longcat;
using namespace longcat::gradcheck;

namespace {

struct Sizes {
  int64_t T, experts, all, topK, groups;
  double meanExperts;
};

}  // namespace

LONGCAT_TEST(balance_loss) {
  const double alpha = 0.3;
  for (const Sizes& s : {Sizes{1, 1, 1, 1, 1, 1}, Sizes{7, 6, 9, 3, 2, 2}, Sizes{50, 8, 12, 4, 4, 2.5}, Sizes{5, 4, 4, 2, 2, 2}}) {
    std::vector<int32_t> chosen;
    for (int64_t i = 0; i < s.T * s.topK; ++i) chosen.push_back(static_cast<int32_t>(t.randomInteger(s.all)));
    const Tensor scores = t.randomF32({s.T, s.all}, 0, 1), ids = t.i32({s.T, s.topK}, chosen), rows = t.i32({1}, {static_cast<int32_t>(s.T)});
    Doubles p = doubles(t.floats(scores));
    const auto groupOf = [&](int64_t expert) { return expert < s.experts ? expert / (s.experts / s.groups) : s.groups; };
    Doubles share(static_cast<size_t>(s.groups + 1));
    for (int32_t expert : chosen) {
      const bool ffn = expert < s.experts;
      share[static_cast<size_t>(groupOf(expert))] +=
          (ffn ? static_cast<double>(s.groups) / s.meanExperts : 1 / (static_cast<double>(s.topK) - s.meanExperts)) / static_cast<double>(s.T);
    }
    const auto loss = [&] {
      double sum = 0;
      for (size_t i = 0; i < p.size(); ++i) sum += alpha * share[static_cast<size_t>(groupOf(static_cast<int64_t>(i) % s.all))] * p[i] / static_cast<double>(s.T);
      return sum;
    };
    const std::vector<float> wantD = differences(p, loss);
    for (Isa isa : t.isasOf("balance_loss")) {
      for (int threads : {1, 3}) {
        const Tensor out = t.f32({1}), f = t.f32({s.groups + 1}), probability = t.f32({s.groups + 1}), d = t.f32({s.all});
        t.run(isa, "balance_loss", args({&scores, &ids, &out, &f, &probability, &d, &rows},
                                        {static_cast<double>(s.experts), static_cast<double>(s.groups), s.meanExperts, alpha}), threads);
        t.expectClose("f", t.floats(f), std::vector<float>(share.begin(), share.end()), 1e-6);
        t.expectClose("loss", t.floats(out), {static_cast<float>(loss())}, 1e-6);
        const std::vector<float> row = t.floats(d);
        for (int64_t r = 0; r < s.T; ++r) t.expectClose("dscore, of every row", row.data(), wantD.data() + r * s.all, s.all, 1e-6);
      }
    }
  }
}

LONGCAT_TEST(balance_loss) {
  const Tensor scores = t.f32({2, 9}), ids = t.i32({2, 3}), loss = t.f32({1}), f = t.f32({3}), P = t.f32({3}), d = t.f32({9}), rows = t.i32({1}, {2});
  const auto run = [&](double groups, double mean) { t.run(Isa::plain, "balance_loss", args({&scores, &ids, &loss, &f, &P, &d, &rows}, {5, groups, mean, 1})); };
  t.expectThrows("groups of unequal size", "INTERNAL", "equal groups", [&] { run(2, 2); });
  t.expectThrows("no share for zero experts", "INTERNAL", "mean_experts", [&] { run(5, 3); });
}
