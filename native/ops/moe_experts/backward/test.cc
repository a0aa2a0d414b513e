// moe_experts_backward on moe_route's plan, against central differences in float64 of the weighted sum: three products in a row in
// float, 1e-5. Tokens have none, some and only zero experts.
#include "ops/gradcheck.h"
#include "ops/reference.h"

using namespace longcat;
using namespace longcat::gradcheck;

namespace {

struct Sizes {
  int64_t T, width, ffn, experts, all, topK;
};

struct Case {
  Sizes s;
  Tensor h, dOut, rows;
  std::vector<Tensor> gates, ups, downs;
  std::vector<int32_t> ids;
  Tensor weights, identity, start, planRow, slotPlan;
  Case(OpContext& t, const Sizes& sizes) : s(sizes) {
    h = t.randomF32({s.T, s.width}, -2, 2), dOut = t.randomF32({s.T, s.width}), rows = t.i32({1}, {static_cast<int32_t>(s.T)});
    for (int64_t e = 0; e < s.experts; ++e) {
      gates.push_back(t.randomF32({s.ffn, s.width})), ups.push_back(t.randomF32({s.ffn, s.width})), downs.push_back(t.randomF32({s.width, s.ffn}));
    }
    const Tensor classifier = t.randomF32({s.all, s.width}), bias = t.f32({1, s.all}), scores = t.f32({s.T, s.all}), chosen = t.i32({s.T, s.topK}), ffn = t.i32({s.T});
    weights = t.f32({s.T, s.topK}), identity = t.f32({s.T}), start = t.i32({s.experts + 1}), planRow = t.i32({s.T * s.topK}), slotPlan = t.i32({s.T, s.topK});
    t.run(Isa::plain, "moe_route",
          args({&h, &classifier, &bias, &scores, &chosen, &weights, &identity, &ffn, &start, &planRow, &slotPlan, &rows}, {static_cast<double>(s.experts), 1.5}));
    ids = t.integers(chosen);
  }
};

/// Gradients of each expert, by expert.
struct Run {
  std::vector<Tensor> dGates, dUps, dDowns;
  Tensor dH, dWeights;
  Run(OpContext& t, const Case& c, Isa isa, int threads, float before) {
    const Sizes& s = c.s;
    const std::vector<float> there(static_cast<size_t>(s.ffn * s.width), before);
    for (int64_t e = 0; e < s.experts; ++e)
      dGates.push_back(t.f32({s.ffn, s.width}, there)), dUps.push_back(t.f32({s.ffn, s.width}, there)), dDowns.push_back(t.f32({s.width, s.ffn}, there));
    const Tensor gate = t.stack(c.gates), up = t.stack(c.ups), down = t.stack(c.downs), dGate = t.stack(dGates), dUp = t.stack(dUps), dDown = t.stack(dDowns);
    const int64_t entries = s.T * s.topK;
    const Tensor g = t.f32({entries, s.ffn}), u = t.f32({entries, s.ffn}), hidden = t.f32({entries, s.ffn}), partial = t.f32({entries, s.width});
    dH = t.f32({s.T, s.width}), dWeights = t.f32({s.T, s.topK});
    t.run(isa, "moe_experts_backward",
          args({&c.h, &gate, &dGate, &up, &dUp, &down, &dDown, &c.weights, &c.identity, &c.start, &c.planRow, &c.slotPlan, &c.dOut, &dH, &dWeights, &g, &u,
                &hidden, &partial, &c.rows}),
          threads);
  }
  std::vector<float> all(OpContext& t) const {
    std::vector<float> numbers = joined(t, {&dH, &dWeights});
    for (const auto* list : {&dGates, &dUps, &dDowns}) {
      for (const Tensor& tensor : *list) {
        const std::vector<float> part = t.floats(tensor);
        numbers.insert(numbers.end(), part.begin(), part.end());
      }
    }
    return numbers;
  }
};

std::vector<Doubles> allOf(OpContext& t, const std::vector<Tensor>& tensors) {
  std::vector<Doubles> values;
  for (const Tensor& tensor : tensors) values.push_back(doubles(t.floats(tensor)));
  return values;
}

}  // namespace

LONGCAT_TEST(moe_experts_backward) {
  for (const Sizes& s : {Sizes{1, 1, 1, 1, 1, 1}, Sizes{9, 5, 3, 3, 5, 2}, Sizes{4, 17, 19, 2, 3, 3}}) {
    const Case c(t, s);
    const auto width = static_cast<size_t>(s.width), ffn = static_cast<size_t>(s.ffn);
    Doubles h = doubles(t.floats(c.h)), weights = doubles(t.floats(c.weights));
    std::vector<Doubles> gates = allOf(t, c.gates), ups = allOf(t, c.ups), downs = allOf(t, c.downs);
    const Doubles direction = doubles(t.floats(c.dOut));
    const auto loss = [&] {
      double sum = 0;
      for (size_t slot = 0; slot < c.ids.size(); ++slot) {
        const size_t row = slot / static_cast<size_t>(s.topK);
        const Doubles x(h.begin() + row * width, h.begin() + (row + 1) * width), d(direction.begin() + row * width, direction.begin() + (row + 1) * width);
        Doubles out = x;
        if (const auto e = static_cast<size_t>(c.ids[slot]); c.ids[slot] < s.experts) {
          Doubles hidden = product(x, gates[e], width);
          const Doubles u = product(x, ups[e], width);
          for (size_t i = 0; i < hidden.size(); ++i) hidden[i] = reference::silu(hidden[i]) * u[i];
          out = product(hidden, downs[e], ffn);
        }
        sum += weights[slot] * dot(out, d);
      }
      return sum;
    };
    const std::vector<float> wantH = differences(h, loss), wantWeights = differences(weights, loss);
    for (Isa isa : t.isasOf("moe_experts_backward")) {
      const float before = 0.25f;
      const Run run(t, c, isa, 2, before);
      t.expectClose("dh", t.floats(run.dH), wantH, 1e-5);
      t.expectClose("dweights", t.floats(run.dWeights), wantWeights, 1e-5);
      for (size_t e = 0; e < gates.size(); ++e) {
        const auto added = [&](Doubles& values) { return plus(std::vector<float>(values.size(), before), differences(values, loss)); };
        t.expectClose("dgate, added", t.floats(run.dGates[e]), added(gates[e]), 1e-5);
        t.expectClose("dup, added", t.floats(run.dUps[e]), added(ups[e]), 1e-5);
        t.expectClose("ddown, added", t.floats(run.dDowns[e]), added(downs[e]), 1e-5);
      }
    }
  }
}

LONGCAT_TEST(moe_experts_backward) {
  const Case c(t, {120, 70, 40, 7, 11, 4});
  for (Isa isa : t.isasOf("moe_experts_backward")) {
    std::vector<float> first;
    for (int threads : {1, 2, 3}) {
      const std::vector<float> all = Run(t, c, isa, threads, 0).all(t);
      if (threads == 1) first = all;
      t.expectSameBits("all gradients on " + std::to_string(threads) + " threads", all, first);
    }
  }
}
