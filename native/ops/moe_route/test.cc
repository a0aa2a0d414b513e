// moe_route: probabilities against float64, choice and plan exactly.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "ops/harness.h"

using namespace longcat;

namespace {

struct Outputs {
  Tensor scores, ids, weights, identity, ffnCount, expertStart, planRow, slotPlan;
  Outputs(TestContext& t, int64_t capacity, int64_t all, int64_t experts, int64_t k)
      : scores(t.f32({capacity, all})), ids(t.i32({capacity, k})), weights(t.f32({capacity, k})), identity(t.f32({capacity})),
        ffnCount(t.i32({capacity})), expertStart(t.i32({experts + 1})), planRow(t.i32({capacity * k})), slotPlan(t.i32({capacity, k})) {}
  OpArgs arguments(const Tensor& h, const Tensor& classifier, const Tensor& bias, const Tensor& rows, int64_t experts, double factor) {
    return args({&h, &classifier, &bias, &scores, &ids, &weights, &identity, &ffnCount, &expertStart, &planRow, &slotPlan, &rows},
                {static_cast<double>(experts), factor});
  }
  OpArgs withoutPlan(const Tensor& h, const Tensor& classifier, const Tensor& bias, const Tensor& rows, int64_t experts, double factor) {
    return args({&h, &classifier, &bias, &scores, &ids, &weights, &identity, &ffnCount, nullptr, nullptr, nullptr, &rows}, {static_cast<double>(experts), factor});
  }
};

/// Checks the choice of every live row and the plan against the scores that the operation itself gave.
void checkChoice(TestContext& t, Outputs& o, const std::vector<float>& bias, int64_t rows, int64_t experts, int64_t k, float factor) {
  const int64_t all = static_cast<int64_t>(bias.size());
  const std::vector<float> scores = t.floats(o.scores);
  std::vector<int32_t> ids, ffnCount;
  std::vector<float> weights, identity;
  std::vector<std::vector<int32_t>> rowsOf(experts);
  for (int64_t r = 0; r < rows; ++r) {
    const float* p = scores.data() + r * all;
    std::vector<int32_t> order(all);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return p[a] + bias[a] > p[b] + bias[b]; });
    order.resize(k);
    std::sort(order.begin(), order.end());
    float zero = 0;
    int32_t ffn = 0;
    for (int32_t id : order) {
      ids.push_back(id);
      weights.push_back(p[id] * factor);
      if (id < experts) ++ffn, rowsOf[id].push_back(static_cast<int32_t>(r));
      else zero += p[id] * factor;
    }
    identity.push_back(zero);
    ffnCount.push_back(ffn);
  }
  const auto firsts = [](auto values, int64_t n) { return decltype(values)(values.begin(), values.begin() + n); };
  t.expectSame("ids", firsts(t.integers(o.ids), rows * k), ids);
  t.expectSameBits("weights", firsts(t.floats(o.weights), rows * k), weights);
  t.expectSameBits("identity weight", firsts(t.floats(o.identity), rows), identity);
  t.expectSame("FFN experts", firsts(t.integers(o.ffnCount), rows), ffnCount);

  std::vector<int32_t> start = {0}, planRow;
  for (const auto& list : rowsOf) {
    planRow.insert(planRow.end(), list.begin(), list.end());
    start.push_back(static_cast<int32_t>(planRow.size()));
  }
  t.expectSame("where experts start", t.integers(o.expertStart), start);
  t.expectSame("rows by expert", firsts(t.integers(o.planRow), static_cast<int64_t>(planRow.size())), planRow);
  const std::vector<int32_t> slots = t.integers(o.slotPlan);
  bool fits = true;
  for (int64_t i = 0; i < rows * k; ++i) {
    const int32_t id = ids[i], entry = slots[i];
    if (id >= experts) fits = fits && entry == -1;
    else fits = fits && entry >= start[id] && entry < start[id + 1] && planRow[entry] == i / k;
  }
  t.expect(fits, "every slot finds its plan entry");
}

/// Softmax of x wᵀ in float64 for the first `rows` rows.
std::vector<float> probabilities(const std::vector<float>& x, const std::vector<float>& w, int64_t rows, int64_t hidden) {
  const int64_t all = static_cast<int64_t>(w.size()) / hidden;
  std::vector<float> result;
  for (int64_t r = 0; r < rows; ++r) {
    std::vector<double> e(all);
    double sum = 0;
    for (int64_t i = 0; i < all; ++i) {
      double dot = 0;
      for (int64_t k = 0; k < hidden; ++k) dot += double{x[r * hidden + k]} * w[i * hidden + k];
      sum += e[i] = std::exp(dot);
    }
    for (double v : e) result.push_back(static_cast<float>(v / sum));
  }
  return result;
}

/// The router is float32 whatever the activations are: given the same h, it is this exact.
void expectProbabilities(TestContext& t, const std::vector<float>& got, const std::vector<float>& want) {
  double worst = 0;
  for (size_t i = 0; i < want.size(); ++i) worst = std::max(worst, got[i] == got[i] ? std::abs(double{got[i]} - want[i]) : INFINITY);
  t.expect(worst <= 2e-6, "probabilities off by " + std::to_string(worst));
}

}  // namespace

LONGCAT_TEST(moe_route) {
  struct Case { int64_t rows, hidden, experts, zero, k; bool half; };
  for (const Case c : {Case{1, 256, 24, 12, 6, false}, {9, 144, 4, 2, 2, false}, {33, 40, 14, 7, 5, true}, {5, 33, 8, 0, 8, false},
                       {3, 64, 5, 4, 9, true}, {7, 512, 512, 256, 12, true}, {4, 19, 1, 3, 4, false},
                       {150, 72, 22, 10, 5, true}, {90, 24, 300, 80, 12, false}, {6, 16, 1100, 60, 9, false}}) {
    const int64_t all = c.experts + c.zero, capacity = c.rows + 3;
    Tensor h = t.randomF32({capacity, c.hidden}, -2, 2), rows = t.i32({1}, {static_cast<int32_t>(c.rows)});
    for (int64_t i = c.rows * c.hidden; i < capacity * c.hidden; ++i) reinterpret_cast<float*>(h.data)[i] = NAN;
    Tensor classifier = c.half ? t.randomBf16({all, c.hidden}, -.4, .4) : t.randomF32({all, c.hidden}, -.4, .4);
    Tensor bias = c.half ? t.randomBf16({1, all}, -.02, .02) : t.randomF32({1, all}, -.02, .02);
    const std::vector<float> x = t.floats(h), w = t.floats(classifier), biases = t.floats(bias);
    for (Isa isa : t.isas()) {
      const std::vector<float> want = probabilities(t.asActivations(isa, x), w, c.rows, c.hidden);
      std::vector<float> first;
      for (int threads : {1, 2, 3}) {
        Outputs o(t, capacity, all, c.experts, c.k);
        t.run(isa, "moe_route", o.arguments(h, classifier, bias, rows, c.experts, 2.5), threads);
        std::vector<float> scores = t.floats(o.scores);
        t.expect(std::isnan(scores.back()) && t.integers(o.ids).back() == -1, "rows beyond the live ones are not written");
        scores.resize(c.rows * all);
        expectProbabilities(t, scores, want);
        checkChoice(t, o, biases, c.rows, c.experts, c.k, 2.5f);
        if (first.empty()) first = scores;
        t.expectSameBits("any thread count", scores, first);
      }
      // Alone, each row has the bits that it has among others.
      Outputs alone(t, 1, all, c.experts, c.k);
      Tensor one = t.i32({1}, {1}), row = t.f32({1, c.hidden}, {x.begin() + (c.rows - 1) * c.hidden, x.begin() + c.rows * c.hidden});
      t.run(isa, "moe_route", alone.arguments(row, classifier, bias, one, c.experts, 2.5));
      t.expectSameBits("any batch", t.floats(alone.scores), {first.end() - all, first.end()});
    }
  }
}

LONGCAT_TEST(moe_route) {
  // On a GPU kernels are chosen by the number of rows. Sizes of LongCat-Flash (and half of them): whatever the rows, a row's bits stay.
  for (Isa isa : t.isas()) {
    if (!isGpu(isa)) continue;
    struct Case { int64_t hidden, experts, zero; bool half; };
    for (const Case c : {Case{6144, 512, 256, false}, {6144, 512, 256, true}, {1568, 256, 128, false}}) {
      const int64_t most = 300, all = c.experts + c.zero, k = 12;
      const Tensor classifier = c.half ? t.randomBf16({all, c.hidden}, -.05, .05) : t.randomF32({all, c.hidden}, -.05, .05);
      const Tensor bias = t.randomF32({1, all}, -1e-3, 1e-3), h = t.f32({most, c.hidden}, t.asActivations(isa, t.randomFloats(most * c.hidden)));
      const std::vector<float> x = t.floats(h);
      std::vector<float> first;
      for (const int64_t capacity : {int64_t{1}, int64_t{2}, int64_t{16}, int64_t{31}, int64_t{64}, int64_t{130}, int64_t{256}, most}) {
        const int64_t live = capacity - capacity / 10;
        const Tensor few = t.f32({capacity, c.hidden}, {x.begin(), x.begin() + capacity * c.hidden}), rows = t.i32({1}, {static_cast<int32_t>(live)});
        Outputs o(t, capacity, all, c.experts, k);
        t.run(isa, "moe_route", o.arguments(few, classifier, bias, rows, c.experts, 6));
        const std::vector<float> scores = t.floats(o.scores);
        if (first.empty()) {
          expectProbabilities(t, scores, probabilities(x, t.floats(classifier), 1, c.hidden));
          first = scores;
        }
        t.expectSameBits("the first row among " + std::to_string(capacity), {scores.begin(), scores.begin() + all}, first);
        checkChoice(t, o, t.floats(bias), live, c.experts, k, 6);
        // The last row alone, as if it were the first.
        Outputs alone(t, 1, all, c.experts, k);
        const Tensor one = t.i32({1}, {1}), row = t.f32({1, c.hidden}, {x.begin() + (live - 1) * c.hidden, x.begin() + live * c.hidden});
        t.run(isa, "moe_route", alone.arguments(row, classifier, bias, one, c.experts, 6));
        t.expectSameBits("the last row of " + std::to_string(live), t.floats(alone.scores), {scores.begin() + (live - 1) * all, scores.begin() + live * all});
      }
    }
  }
}

LONGCAT_TEST(moe_route) {
  // Ties, few and many, within and beyond what a warp compares at once.
  const int64_t experts = 500, all = 700, T = 40;
  const Tensor classifier = t.f32({all, 32}), h = t.randomF32({T, 32}), rows = t.i32({1}, {T});
  std::vector<float> some(all), none(all);
  for (int64_t i = 0; i < all; ++i) some[i] = i % 97 == 0 ? 1.0f : i % 61 == 0 ? 0.5f : 0.0f;
  for (Isa isa : t.isas()) {
    for (const auto& bias : {some, none}) {
      for (const int64_t k : {12, 40}) {
        Outputs o(t, T, all, experts, k);
        t.run(isa, "moe_route", o.arguments(h, classifier, t.f32({1, all}, bias), rows, experts, 6));
        checkChoice(t, o, bias, T, experts, k, 6);
      }
    }
  }
}

LONGCAT_TEST(moe_route) {
  // Equal scores: the lower ids. NaN: a choice within range, the plan whole, other rows untouched by it.
  const int64_t experts = 6, all = 9, k = 4;
  Tensor classifier = t.f32({all, 2}, std::vector<float>(2 * all, 0)), bias = t.f32({1, all}), rows = t.i32({1}, {3});
  Tensor h = t.f32({3, 2}, {1, 1, NAN, 1, 2, 2});
  for (Isa isa : t.isas()) {
    Outputs o(t, 3, all, experts, k);
    t.run(isa, "moe_route", o.arguments(h, classifier, bias, rows, experts, 6));
    t.expectSame("lowest ids", t.integers(o.ids), {0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3});
    const std::vector<float> weights = t.floats(o.weights);
    t.expectClose("other rows", {weights[0], weights[8]}, {6.0f / 9, 6.0f / 9}, 1e-6);
    t.expectSame("plan", t.integers(o.expertStart), {0, 3, 6, 9, 12, 12, 12});
  }
  // A bias that sends everything to the zero experts.
  Tensor strong = t.f32({1, all}, {0, 0, 0, 0, 0, 0, 10, 10, 10}), few = t.i32({1}, {1});
  Outputs o(t, 3, all, experts, 3);
  t.run(Isa::plain, "moe_route", o.arguments(h, classifier, strong, few, experts, 6));
  t.expectSame("no FFN expert", {t.integers(o.ffnCount)[0], t.integers(o.expertStart)[experts]}, {0, 0});
  t.expectClose("identity weight", {t.floats(o.identity)[0]}, {2.0f}, 1e-6);
  t.expectThrows("more choices than experts", "INTERNAL", "moe_route: ids must choose", [&] {
    Outputs many(t, 3, all, experts, 10);
    t.run(Isa::plain, "moe_route", many.arguments(h, classifier, bias, rows, experts, 6));
  });
}

LONGCAT_TEST(moe_route) {
  Tensor classifier = t.randomF32({9, 2}), bias = t.f32({1, 9}), rows = t.i32({1}, {0}), h = t.f32({3, 2});
  Outputs o(t, 3, 9, 6, 4);
  t.run(Isa::plain, "moe_route", o.arguments(h, classifier, bias, rows, 6, 6));
  t.expectSame("no rows: an empty plan", t.integers(o.expertStart), std::vector<int32_t>(7, 0));
}

// Without the plan the choice is the same, in the same bits: few rows and many, tiny routers and large.
LONGCAT_TEST(moe_route) {
  struct Case { int64_t capacity, rows, hidden, experts, zero, k; };
  for (const Case c : {Case{9, 6, 48, 4, 2, 2}, {40, 33, 40, 60, 21, 5}, {1, 1, 256, 512, 256, 12}, {50, 47, 64, 512, 256, 12}, {300, 280, 64, 512, 256, 12}, {1100, 1050, 32, 256, 128, 12}, {90, 80, 24, 600, 300, 7}}) {
    const int64_t all = c.experts + c.zero;
    const Tensor h = t.randomF32({c.capacity, c.hidden}, -2, 2), rows = t.i32({1}, {static_cast<int32_t>(c.rows)});
    const Tensor classifier = t.randomF32({all, c.hidden}, -.4, .4), bias = t.randomF32({1, all}, -.02, .02);
    for (Isa isa : t.isas()) {
      Outputs with(t, c.capacity, all, c.experts, c.k), without(t, c.capacity, all, c.experts, c.k);
      t.run(isa, "moe_route", with.arguments(h, classifier, bias, rows, c.experts, 6), 2);
      t.run(isa, "moe_route", without.withoutPlan(h, classifier, bias, rows, c.experts, 6), 2);
      t.expectSameBits("probabilities", t.floats(without.scores), t.floats(with.scores));
      t.expectSame("ids", t.integers(without.ids), t.integers(with.ids));
      t.expectSameBits("weights", t.floats(without.weights), t.floats(with.weights));
      t.expectSameBits("identity weight", t.floats(without.identity), t.floats(with.identity));
      t.expectSame("FFN experts", t.integers(without.ffnCount), t.integers(with.ffnCount));
    }
  }
  Outputs o(t, 2, 6, 4, 2);
  const Tensor h = t.f32({2, 3}), classifier = t.f32({6, 3}), bias = t.f32({1, 6}), rows = t.i32({1}, {2});
  t.expectThrows("a part of the plan", "INTERNAL", "come together or not at all", [&] {
    OpArgs arguments = o.arguments(h, classifier, bias, rows, 4, 6);
    arguments.tensor[9] = nullptr;
    t.run(Isa::plain, "moe_route", arguments);
  });
}

// On a GPU a block plans by bits of so many rows at a time: more rows than an expert has bits for, and some whose bits are read at once.
LONGCAT_TEST(moe_route) {
  for (Isa isa : t.isas()) {
    if (!isGpu(isa)) continue;
    for (const int64_t live : {2000, 40000, 135000}) {
      const int64_t experts = 5, all = 7, k = 3, hidden = 8, capacity = live + 5;
      const Tensor h = t.randomF32({capacity, hidden}, -2, 2), classifier = t.randomF32({all, hidden}, -1, 1), bias = t.randomF32({1, all}, -.1, .1);
      Outputs o(t, capacity, all, experts, k);
      t.run(isa, "moe_route", o.arguments(h, classifier, bias, t.i32({1}, {static_cast<int32_t>(live)}), experts, 6));
      checkChoice(t, o, t.floats(bias), live, experts, k, 6);
    }
  }
}
