// moe_experts against float64: a weighted sum of up to K SwiGLUs, each near 1 in size: 1e-5.
#include <cstring>

#include "ops/experts_test.h"
#include "ops/moe_experts/plan.h"

using namespace longcat;
using namespace longcat::reference;

namespace {

struct Case {
  TestContext& t;
  const Experts& experts;
  Routing routing;
  Tensor h;
  int64_t T, topK, width, ffn;

  std::vector<float> run(Isa isa, int threads, int32_t liveRows) {
    const Tensor weights = t.f32({T, topK}, routing.weights), identity = t.f32({T}, routing.identity);
    const Tensor start = t.i32({static_cast<int64_t>(routing.start.size())}, routing.start), planRow = t.i32({T * topK}, routing.planRow);
    const Tensor slotPlan = t.i32({T, topK}, routing.slotPlan), rows = t.i32({1}, {liveRows});
    const Tensor hidden = t.f32({T * topK, ffn}), partial = t.f32({T * topK, width}), out = t.f32({T, width});
    const Experts& e = experts;
    t.run(isa, "moe_experts",
          args({&h, &e.gate.data, e.gate.scales(), &e.up.data, e.up.scales(), &e.down.data, e.down.scales(), &weights, &identity, &start, &planRow,
                &slotPlan, &hidden, &partial, &out, &rows}, {0}),
          threads);
    return t.floats(out);
  }

  std::vector<float> wanted(const std::vector<std::vector<int32_t>>& ids) const {
    const std::vector<float> hs = t.floats(h);
    std::vector<float> want;
    for (int64_t r = 0; r < T; ++r) {
      const float* x = hs.data() + r * width;
      std::vector<double> sum(static_cast<size_t>(width));
      for (int64_t slot = 0; slot < topK; ++slot) {
        const auto id = static_cast<size_t>(ids[static_cast<size_t>(r)][static_cast<size_t>(slot)]);
        const double weight = routing.weights[static_cast<size_t>(r * topK + slot)];
        const bool isZero = id >= experts.gate.weights.size();
        const std::vector<double> y = isZero ? std::vector<double>(x, x + width)
                                             : swiglu(experts.gate.weights[id].values, experts.up.weights[id].values, experts.down.weights[id].values, x, width);
        for (size_t k = 0; k < sum.size(); ++k) sum[k] += weight * y[k];
      }
      for (double y : sum) want.push_back(static_cast<float>(y));
    }
    return want;
  }
};

}  // namespace

LONGCAT_TEST(moe_experts) {
  struct Size { int64_t width, ffn, topK; int32_t experts, zeros; };
  for (const auto [width, ffn, topK, experts, zeros] : {Size{7, 5, 2, 3, 2}, Size{24, 48, 2, 4, 2}, Size{96, 48, 8, 8, 0}, Size{130, 40, 12, 20, 10}, Size{256, 128, 6, 24, 12}, Size{1024, 512, 2, 5, 1}}) {
    for (DType dtype : kWeightDtypes) {
      const Experts weights = randomExperts(t, dtype, experts, width, ffn);
      for (int64_t T : t.fewOrAll<int64_t>({5, 70}, {1, 5, 70})) {
        const auto ids = randomChoices(t, T, topK, experts + zeros);
        Case c{t, weights, planOf(ids, t.randomFloats(T * topK, 0, 0.6f), experts), t.randomF32({T, width}, -2, 2), T, topK, width, ffn};
        const std::vector<float> want = c.wanted(ids);
        for (Isa isa : t.isas()) t.expectClose(describe(dtype, T, ffn, width), c.run(isa, 2, static_cast<int32_t>(T)), want, 1e-5);
      }
    }
  }
}

// The bits of a token's output: alone, in company, on any number of threads.
LONGCAT_TEST(moe_experts) {
  const int64_t topK = 4;
  const int32_t experts = 6, zeros = 3;
  struct Size { int64_t T, width, ffn; };
  for (const auto [T, width, ffn] : {Size{60, 144, 272}, Size{60, 1024, 256}, Size{420, 256, 384}}) {  // the last: hundreds of rows an expert
    for (DType dtype : kWeightDtypes) {
      const Experts weights = randomExperts(t, dtype, experts, width, ffn);
      const auto ids = randomChoices(t, T, topK, experts + zeros);
      const std::vector<float> gains = t.randomFloats(T * topK, 0, 1);
      Case all{t, weights, planOf(ids, gains, experts), t.randomF32({T, width}), T, topK, width, ffn};
      const std::vector<float> hs = t.floats(all.h), want = all.wanted(ids);
      for (Isa isa : t.isas()) {
        const std::vector<float> whole = all.run(isa, 1, static_cast<int32_t>(T));
        t.expectClose(describe(dtype, T, ffn, width), whole, want, 1e-5);
        for (int threads : t.fewOrAll({2}, {2, 3})) t.expectSameBits("bits on " + std::to_string(threads) + " threads", all.run(isa, threads, static_cast<int32_t>(T)), whole);
        for (int64_t r = 0; r < T; r += T / (t.brief() ? 2 : 8)) {
          const auto from = r * width;
          Case one{t, weights, planOf({ids[static_cast<size_t>(r)]}, {gains.begin() + r * topK, gains.begin() + (r + 1) * topK}, experts),
                   t.f32({1, width}, {hs.begin() + from, hs.begin() + from + width}), 1, topK, width, ffn};
          t.expectSameBits("bits of token " + std::to_string(r) + " alone", one.run(isa, 3, 1), {whole.begin() + from, whole.begin() + from + width});
        }
      }
    }
  }
}

// Zero experts touch no weights: not even NaN or unmapped ones change or stop them.
LONGCAT_TEST(moe_experts) {
  const int64_t T = 3, topK = 2, width = 24, ffn = 16;
  const int32_t experts = 2;
  Experts weights = randomExperts(t, DType::f32, experts, width, ffn);
  for (Stack* stack : {&weights.gate, &weights.up, &weights.down}) {
    std::memset(stack->weights[1].data.data, 0xff, static_cast<size_t>(width * ffn) * sizeof(float));  // expert 1 is all NaN
    auto parts = std::make_shared<std::vector<const std::byte*>>(*stack->data.parts);
    (*parts)[0] = nullptr;  // expert 0 is nowhere
    stack->data.parts = parts;
  }
  const std::vector<std::vector<int32_t>> ids = {{2, 3}, {1, 3}, {2, 3}};
  Case c{t, weights, planOf(ids, {0.25f, 0.5f, 1, 1, 0.125f, 2}, experts), t.randomF32({T, width}), T, topK, width, ffn};
  for (Isa isa : t.isas()) {
    const std::vector<float> hs = t.asActivations(isa, t.floats(c.h)), out = c.run(isa, 2, 2);
    std::vector<float> want;
    for (int64_t k = 0; k < width; ++k) want.push_back(0.75f * hs[static_cast<size_t>(k)]);
    t.expectSameBits("identity weight times h, exactly", {out.begin(), out.begin() + width}, t.asActivations(isa, want));
    t.expect(std::isnan(out[width]), "a NaN expert shows in its own token");
    uint32_t beyond;
    std::memcpy(&beyond, &out[2 * width], 4);
    t.expect(beyond == 0xffffffffu, "rows beyond the live ones stay as they were");
  }
}

// Without the arguments of its sum the operation leaves the products alone, with the same bits; h may have other rows than there are tokens.
LONGCAT_TEST(moe_experts) {
  const int64_t T = 9, topK = 3, width = 96, ffn = 48, entries = T * topK;
  const int32_t experts = 5;
  for (DType dtype : kWeightDtypes) {
    const Experts e = randomExperts(t, dtype, experts, width, ffn);
    const auto ids = randomChoices(t, T, topK, experts);  // no zero experts: every entry is used
    const Routing routing = planOf(ids, t.randomFloats(entries, 0, 1), experts);
    const Tensor h = t.randomF32({T, width}), start = t.i32({experts + 1}, routing.start), planRow = t.i32({entries}, routing.planRow);
    const Tensor weights = t.f32({T, topK}, routing.weights), identity = t.f32({T}, routing.identity), slotPlan = t.i32({T, topK}, routing.slotPlan);
    const Tensor hidden = t.f32({entries, ffn}), partial = t.f32({entries, width}), products = t.f32({entries, width}), out = t.f32({T, width});
    const Tensor rows = t.i32({1}, {static_cast<int32_t>(T)});
    const auto with = [&](const Tensor& to, const Tensor* w, const Tensor* i, const Tensor* s, const Tensor* o, const Tensor* r) {
      return args({&h, &e.gate.data, e.gate.scales(), &e.up.data, e.up.scales(), &e.down.data, e.down.scales(), w, i, &start, &planRow, s, &hidden, &to, o, r}, {0});
    };
    for (Isa isa : t.isas()) {
      t.run(isa, "moe_experts", with(partial, &weights, &identity, &slotPlan, &out, &rows));
      t.run(isa, "moe_experts", with(products, nullptr, nullptr, nullptr, nullptr, nullptr));
      t.expectSameBits(describe(dtype, T, ffn, width) + ", products alone", t.floats(products), t.floats(partial));
    }
    t.expectThrows("fewer entries than none", "INTERNAL", "moe_experts: expected must be a whole number from 0", [&] {
      OpArgs arguments = with(products, nullptr, nullptr, nullptr, nullptr, nullptr);
      arguments.scalar[0] = -1;
      t.run(t.isas()[0], "moe_experts", arguments);
    });
    t.expectThrows("half of the sum's arguments", "INTERNAL", "come together or not at all",
                   [&] { t.run(t.isas()[0], "moe_experts", with(partial, &weights, &identity, &slotPlan, &out, nullptr)); });
  }
}

// Room for many more entries than there are, as several ranks keep it: whatever is said of how many to expect, and however few of them an expert has,
// the bits are the same, and nothing is written behind the last entry.
LONGCAT_TEST(moe_experts) {
  struct Size { int64_t width, ffn; };
  for (const auto [width, ffn] : {Size{512, 256}, Size{130, 40}}) {
    for (DType dtype : kWeightDtypes) {
      const int64_t T = 420, room = 3000;
      const int32_t experts = 4;
      const Experts e = randomExperts(t, dtype, experts, width, ffn);
      const Tensor h = t.randomF32({T, width});
      for (const std::vector<int32_t>& start : {std::vector<int32_t>{0, 3, 403, 403, 420}, {0, 5, 10, 11, 19}}) {
        std::vector<int32_t> entries(static_cast<size_t>(room), 123456789);  // those beyond the last are never read
        for (int32_t i = 0; i < start.back(); ++i) entries[static_cast<size_t>(i)] = static_cast<int32_t>((i * 89 + 7) % T);
        const Tensor planStart = t.i32({experts + 1}, start), planRow = t.i32({room}, entries);
        for (Isa isa : t.isas()) {
          std::vector<float> first;
          for (int expected : {0, 1, 64, 420, 9000}) {
            const Tensor hidden = t.f32({room, ffn}), partial = t.f32({room, width});
            t.run(isa, "moe_experts",
                  args({&h, &e.gate.data, e.gate.scales(), &e.up.data, e.up.scales(), &e.down.data, e.down.scales(), nullptr, nullptr, &planStart, &planRow, nullptr,
                        &hidden, &partial, nullptr, nullptr}, {static_cast<double>(expected)}));
            std::vector<float> products = t.floats(partial);
            const auto last = products.begin() + start.back() * width;
            t.expect(std::all_of(last, products.end(), [](float y) { return std::isnan(y); }), "nothing is written behind the last entry");
            products.erase(last, products.end());
            if (first.empty()) first = products;
            t.expectSameBits(describe(dtype, start.back(), ffn, width) + ", " + std::to_string(expected) + " expected", products, first);
          }
        }
      }
    }
  }
}

// plan.h: tasks cover each active expert's outputs once, and one expert alone is shared out.
LONGCAT_TEST(moe_experts) {
  const std::vector<int32_t> start = {0, 0, 40, 40, 41, 41};
  std::vector<ExpertTasks> list(6);
  const auto cost = [](int64_t rows) { return rows * 1000; };
  const int64_t active = planExpertTasks(start.data(), 5, 100, 8, 100, cost, list.data());
  t.expect(active == 2 && list[0].expert == 1 && list[1].expert == 3 && list[2].expert == -1, "experts 1 and 3 have rows");
  int64_t covered[5] = {};
  for (int64_t task = 0; task < list[active].first; ++task) {
    const ExpertTasks& own = expertOfTask(list.data(), active, task);
    const int64_t begin = (task - own.first) * own.chunk;
    covered[own.expert] += std::min<int64_t>(100, begin + own.chunk) - begin;
  }
  t.expect(covered[1] == 100 && covered[3] == 100, "every output once");
  t.expect(list[1].first > 4 && list[active].first - list[1].first == 1, "the expert with 40 rows is cut, the one with 1 row is not");
  const std::vector<int32_t> single = {0, 1};
  planExpertTasks(single.data(), 1, 128, 8, 100, cost, list.data());
  t.expect(list[1].first >= 4, "a single expert gives work to several threads");
  const std::vector<int32_t> none = {0, 0};
  t.expect(planExpertTasks(none.data(), 1, 128, 8, 100, cost, list.data()) == 0 && list[0].first == 0, "no rows: no tasks");
}
