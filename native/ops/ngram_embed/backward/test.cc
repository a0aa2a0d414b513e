// ngram_embed_backward against central differences in float64 of the averaged embedding; the ids are those of the forward's plan, which
// its own test holds against a worked example. One product and a sum over tokens in float: 5e-6.
#include "ops/gradcheck.h"
#include "ops/ngram_embed/plan.h"

using namespace longcat;
using namespace longcat::gradcheck;

namespace {

struct Case {
  int64_t vocabulary, width, T, slots = 2, context = 30;
  int32_t neighbors, splits;
  std::vector<int32_t> positions, rowSlots, ids;
  std::vector<Tensor> tables, projections;
  Tensor dOut;
  int numTables() const { return (neighbors - 1) * splits; }
  int64_t hidden() const { return width * numTables(); }
  NgramTables hash() const { return {vocabulary, neighbors, splits, 2, numTables()}; }
  const int32_t* historyOf(int64_t r) const { return ids.data() + rowSlots[static_cast<size_t>(r)] * context; }

  Case(OpContext& t, int64_t vocabulary, int64_t width, int32_t neighbors, int32_t splits, int64_t T)
      : vocabulary(vocabulary), width(width), T(T), neighbors(neighbors), splits(splits) {
    for (int64_t r = 0; r < T; ++r) {
      rowSlots.push_back(static_cast<int32_t>(r * slots / T));
      positions.push_back(static_cast<int32_t>(r % context));
    }
    for (int64_t i = 0; i < slots * context; ++i) ids.push_back(static_cast<int32_t>(t.randomInteger(vocabulary)));
    for (int i = 0; i < numTables(); ++i) {
      tables.push_back(t.randomF32({2 * vocabulary + 2 * i + 1, width}));
      projections.push_back(t.randomF32({hidden(), width}));
    }
    dOut = t.randomF32({T, hidden()});
  }
};

struct Run {
  std::vector<Tensor> dTables, dProjections;
  Tensor dWords;
  Run(OpContext& t, const Case& c, Isa isa, int threads) {
    dWords = t.f32({c.vocabulary, c.hidden()});
    for (const Tensor& table : c.tables) dTables.push_back(t.f32({table.shape[0], c.width})), dProjections.push_back(t.f32({c.hidden(), c.width}));
    const Tensor positions = t.i32({c.T}, c.positions), slots = t.i32({c.T}, c.rowSlots), history = t.i32({c.slots, c.context}, c.ids);
    const Tensor rows = t.i32({1}, {static_cast<int32_t>(c.T)});
    OpArgs a = args({&positions, &slots, &history, &dWords, &c.dOut, &rows}, {static_cast<double>(c.neighbors), static_cast<double>(c.splits), 2});
    for (size_t i = 0; i < dTables.size(); ++i) {
      for (const Tensor* tensor : {&c.tables[i], static_cast<const Tensor*>(&dTables[i]), &c.projections[i], static_cast<const Tensor*>(&dProjections[i])})
        a.tensor[a.numTensors++] = tensor;
    }
    t.run(isa, "ngram_embed_backward", a, threads);
  }
};

}  // namespace

LONGCAT_TEST(ngram_embed_backward) {
  for (const Case& c : {Case(t, 5, 3, 3, 2, 11), Case(t, 4, 2, 2, 1, 55)}) {
    Doubles words(static_cast<size_t>(c.vocabulary * c.hidden()));
    std::vector<Doubles> tables, projections;
    for (const Tensor& table : c.tables) tables.push_back(doubles(t.floats(table)));
    for (const Tensor& projection : c.projections) projections.push_back(doubles(t.floats(projection)));
    const Doubles direction = doubles(t.floats(c.dOut));
    const auto loss = [&] {
      double sum = 0;
      for (int64_t r = 0; r < c.T; ++r) {
        const int32_t* history = c.historyOf(r);
        const int64_t position = c.positions[static_cast<size_t>(r)];
        Doubles out(words.begin() + history[position] * c.hidden(), words.begin() + (history[position] + 1) * c.hidden());
        for (int i = 0; i < c.numTables(); ++i) {
          const auto at = static_cast<size_t>(i);
          const int64_t id = ngramId(history, position, c.hash(), i / c.splits + 2, c.tables[at].shape[0]);
          const Doubles row(tables[at].begin() + id * c.width, tables[at].begin() + (id + 1) * c.width);
          const Doubles part = product(row, projections[at], static_cast<size_t>(c.width));
          for (size_t k = 0; k < out.size(); ++k) out[k] += part[k];
        }
        for (int64_t k = 0; k < c.hidden(); ++k) sum += out[static_cast<size_t>(k)] * direction[static_cast<size_t>(r * c.hidden() + k)] / (1 + c.numTables());
      }
      return sum;
    };
    for (Isa isa : t.isasOf("ngram_embed_backward")) {
      const Run run(t, c, isa, 2);
      t.expectClose("the word table", t.floats(run.dWords), differences(words, loss), 5e-6);
      for (size_t i = 0; i < tables.size(); ++i) {
        t.expectClose("an n-gram table", t.floats(run.dTables[i]), differences(tables[i], loss), 5e-6);
        t.expectClose("its projection", t.floats(run.dProjections[i]), differences(projections[i], loss), 5e-6);
      }
    }
  }
}

LONGCAT_TEST(ngram_embed_backward) {
  const Case c(t, 30, 20, 4, 2, 60);
  for (Isa isa : t.isasOf("ngram_embed_backward")) {
    std::vector<float> first;
    for (int threads : {1, 2, 3}) {
      const Run run(t, c, isa, threads);
      const std::vector<float> all = joined(t, {&run.dWords, &run.dTables[0], &run.dTables[5], &run.dProjections[0], &run.dProjections[5]});
      if (threads == 1) first = all;
      t.expectSameBits("gradients on " + std::to_string(threads) + " threads", all, first);
    }
  }
}
