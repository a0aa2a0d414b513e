// ngram_embed_backward on the CPU: a task a table, which takes its tokens some at a time; of the word table one takes some columns of every token.
#include "ops/ngram_embed/backward/params.h"

#include "cpu/gemm_gradients.h"
#include "ops/ngram_embed/plan.h"

namespace longcat::LONGCAT_ISA {
namespace {

const int32_t* historyOf(const NgramEmbedBackwardParams& p, int64_t r) { return p.history + p.rowSlot[r] * p.historyStride; }

/// Table i and its projection, over tokens [first, first + count). `gathered` and `dGathered` hold a row of each.
void tableBack(const NgramEmbedBackwardParams& p, int i, int64_t first, int64_t count, float* gathered, float* dGathered) {
  const NgramEmbedBackwardParams::Table& table = p.tables[i];
  const NgramTables hash{p.vocabulary, p.neighbors, p.splits, p.endId, p.numTables};
  const float share = 1.0f / static_cast<float>(1 + p.numTables);
  const auto idOf = [&](int64_t r) { return ngramId(historyOf(p, first + r), p.positions[first + r], hash, i / p.splits + 2, table.count); };
  for (int64_t r = 0; r < count; ++r) {
    const float* from = table.rows + idOf(r) * p.width;
    forLanes(p.width, [&](int64_t k, int n) { storeN(gathered + r * p.width + k, mul(set1(share), loadN(from + k, n)), n); });
  }
  const Rows dOut{p.dOut + first * p.hidden, p.hidden};
  gemmTN(dOut, 0, p.hidden, count, {gathered, p.width}, p.width, {table.dProjection, p.width, true});
  gemmNN(dOut, count, p.hidden, {table.projection, p.width}, p.width, {dGathered, p.width});
  for (int64_t r = 0; r < count; ++r) addScaled(dGathered + r * p.width, p.width, share, table.dRows + idOf(r) * p.width);
}

}  // namespace

void ngram_embed_backward(const void* params, const CpuContext& context) {
  const auto& p = *static_cast<const NgramEmbedBackwardParams*>(params);
  const int64_t rows = liveRows(p.rows, p.capacity);
  forTasks(context, p.numTables, [&](int64_t i, int thread) {
    float* gathered = context.scratch<float>(thread);
    for (int64_t first = 0; first < rows; first += kNgramRows)
      tableBack(p, static_cast<int>(i), first, smaller(kNgramRows, rows - first), gathered, gathered + kNgramRows * p.width);
  });
  const float share = 1.0f / static_cast<float>(1 + p.numTables);
  forColumnStrips(context, p.hidden, [&](int64_t begin, int64_t count) {
    for (int64_t r = 0; r < rows; ++r)
      addScaled(p.dOut + r * p.hidden + begin, count, share, p.dWordTable + historyOf(p, r)[p.positions[r]] * p.hidden + begin);
  });
}

}  // namespace longcat::LONGCAT_ISA
