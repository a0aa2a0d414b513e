// ngram_embed: the ids against a worked example, the embedding against float64. 13 terms near 1, averaged: 2e-6.
#include <cmath>

#include "ops/ngram_embed/plan.h"
#include "ops/reference.h"

using namespace longcat;
using namespace longcat::reference;

// LongCat-Flash-Lite: vocabulary 131072, 4 neighbors, 4 splits, table i of 78 · 131072 + 2i + 1 rows (docs/model.md, 7).
LONGCAT_TEST(ngram_embed) {
  const std::vector<int32_t> tokens = {1, 1000, 2000, 2, 3000, 4000, 5000};
  const NgramTables lite{131072, 4, 4, 2, 12};
  const auto rowsOf = [](int i) { return int64_t{78} * 131072 + 2 * i + 1; };
  struct Example { int64_t position; std::vector<int64_t> ids; };
  const Example examples[] = {
      {2, {8390596, 8390572, 8390548, 8390524, 2346059, 2342673, 2339287, 2335901, 2332515, 2329129, 2325743, 2322357}},
      {3, {6553577, 6553527, 6553477, 6553427, 4274752, 913884, 7776645, 4415779, 10108483, 5855190, 1602069, 7572759}},
      {4, std::vector<int64_t>(12, 3000)},
      {6, {2888533, 2888431, 2888329, 2888227, 6275875, 6416948, 6558025, 6699106, 6840191, 6981280, 7122373, 7263470}}};
  for (const Example& example : examples) {
    std::vector<int64_t> ids(12);
    ngramIds(tokens.data(), example.position, lite, rowsOf, ids.data());
    t.expect(ids == example.ids, "ids at position " + std::to_string(example.position));
  }
  std::vector<int64_t> first(12);
  ngramIds(tokens.data(), 0, lite, rowsOf, first.data());
  t.expect(first == std::vector<int64_t>(12, 1), "at the sequence's start nothing is before the token");
}

namespace {

/// params.h word by word: the sum of all terms before one reduction, each hidden where the rule says so.
int64_t idOf(const std::vector<int32_t>& history, int64_t position, int order, int64_t vocabulary, int32_t endId, int64_t rows) {
  int64_t id = history[static_cast<size_t>(position)];
  for (int d = 1; d < order; ++d) {
    bool hidden = position - d < 0;
    for (int64_t q = position - d; q >= 0 && q < position; ++q) hidden = hidden || history[static_cast<size_t>(q)] == endId;
    int64_t power = 1;
    for (int i = 0; i < d; ++i) power = power * vocabulary % rows;
    if (!hidden) id += history[static_cast<size_t>(position - d)] * power;
  }
  return id % rows;
}

struct Model {
  int64_t vocabulary, hidden, context, slots;
  int32_t neighbors, splits;
  Weight words;
  std::vector<Weight> tables, projections;
  Tensor history;
  std::vector<int32_t> ids;
};

Model randomModel(TestContext& t, DType dtype, int64_t vocabulary, int64_t width, int32_t neighbors, int32_t splits) {
  const int numTables = (neighbors - 1) * splits;
  Model m{vocabulary, width * numTables, 20, 3, neighbors, splits, {}, {}, {}, {}, {}};
  m.words = randomWeight(t, dtype, vocabulary, m.hidden);
  for (int i = 0; i < numTables; ++i) {
    m.tables.push_back(randomWeight(t, dtype, 3 * vocabulary + 2 * i + 1, width));
    m.projections.push_back(randomWeight(t, dtype, m.hidden, width));
  }
  for (int64_t i = 0; i < m.slots * m.context; ++i) m.ids.push_back(static_cast<int32_t>(t.randomInteger(5) == 0 ? 2 : t.randomInteger(vocabulary)));
  m.history = t.i32({m.slots, m.context}, m.ids);
  return m;
}

void runModel(TestContext& t, Isa isa, int threads, const Model& m, const std::vector<int32_t>& positions, const std::vector<int32_t>& slots, int32_t liveRows,
              const Tensor& out) {
  const auto n = static_cast<int64_t>(positions.size());
  const Tensor position = t.i32({n}, positions), slot = t.i32({n}, slots), rows = t.i32({1}, {liveRows});
  OpArgs a = args({&position, &slot, &m.history, &m.words.data, &out, &rows}, {static_cast<double>(m.neighbors), static_cast<double>(m.splits), 2});
  for (size_t i = 0; i < m.tables.size(); ++i) {
    a.tensor[a.numTensors++] = &m.tables[i].data;
    a.tensor[a.numTensors++] = &m.projections[i].data;
  }
  t.run(isa, "ngram_embed", a, threads);
}

std::vector<float> wantedRow(const Model& m, int64_t position, int64_t slot) {
  const std::vector<int32_t> history(m.ids.begin() + slot * m.context, m.ids.begin() + (slot + 1) * m.context);
  const int64_t token = history[static_cast<size_t>(position)], width = m.hidden / static_cast<int64_t>(m.tables.size());
  std::vector<double> sum(m.words.values.begin() + token * m.hidden, m.words.values.begin() + (token + 1) * m.hidden);
  for (size_t i = 0; i < m.tables.size(); ++i) {
    const int64_t id = idOf(history, position, static_cast<int>(i) / m.splits + 2, m.vocabulary, 2, m.tables[i].data.shape[0]);
    const std::vector<double> part = multiply(m.projections[i].values, m.tables[i].values.data() + id * width, width);
    for (size_t k = 0; k < sum.size(); ++k) sum[k] += part[k];
  }
  std::vector<float> want;
  for (double v : sum) want.push_back(static_cast<float>(v / static_cast<double>(1 + m.tables.size())));
  return want;
}

}  // namespace

LONGCAT_TEST(ngram_embed) {
  struct Size { int64_t vocabulary, width; int32_t neighbors, splits; };
  for (const auto [vocabulary, width, neighbors, splits] : {Size{40, 4, 2, 2}, Size{99, 12, 4, 2}, Size{300, 24, 4, 4}, Size{64, 3, 3, 1}, Size{99, 32, 3, 2}, Size{150, 96, 2, 3}}) {
    for (DType dtype : {DType::f32, DType::bf16}) {
      const Model m = randomModel(t, dtype, vocabulary, width, neighbors, splits);
      std::vector<int32_t> positions, slots;
      std::vector<float> want;
      for (int32_t slot : {2, 0, 1}) {
        for (int32_t position = 0; position < 20; ++position) {
          positions.push_back(position);
          slots.push_back(slot);
          const std::vector<float> row = wantedRow(m, position, slot);
          want.insert(want.end(), row.begin(), row.end());
        }
      }
      for (Isa isa : t.isas()) {
        const Tensor out = t.f32({60, m.hidden}), again = t.f32({60, m.hidden}), single = t.f32({1, m.hidden});
        runModel(t, isa, 1, m, positions, slots, 60, out);
        t.expectClose(describe(dtype, 60, m.hidden, width), t.floats(out), want, 2e-6);
        for (int threads : {2, 3}) {
          runModel(t, isa, threads, m, positions, slots, 60, again);
          t.expectSameBits("bits on " + std::to_string(threads) + " threads", t.floats(again), t.floats(out));
        }
        runModel(t, isa, 2, m, positions, slots, 7, again);
        t.expectSameBits("bits with seven rows live", again.data, out.data, static_cast<size_t>(7 * m.hidden) * sizeof(float));
        t.expect(std::isnan(t.floats(again)[static_cast<size_t>(7 * m.hidden)]), "rows beyond the live ones stay as they were");
        for (size_t r = 0; r < 60; r += 11) {
          runModel(t, isa, 3, m, {positions[r]}, {slots[r]}, 1, single);
          t.expectSameBits("bits of a row alone", single.data, out.data + r * static_cast<size_t>(m.hidden) * sizeof(float), static_cast<size_t>(m.hidden) * sizeof(float));
        }
      }
    }
  }
}

LONGCAT_TEST(ngram_embed) {
  Model m = randomModel(t, DType::f32, 20, 4, 2, 2);
  const Tensor out = t.f32({1, m.hidden});
  m.tables.pop_back();
  t.expectThrows("a table short", "INTERNAL", "10 tensors in all, got 8", [&] { runModel(t, Isa::plain, 1, m, {0}, {0}, 1, out); });
}
