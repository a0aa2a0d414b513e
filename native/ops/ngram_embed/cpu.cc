// ngram_embed on the CPU: tiles of rows × outputs; each table's rows are gathered and projected, and added in ascending order.
#include "ops/ngram_embed/params.h"

#include "cpu/gemm.h"
#include "cpu/math.h"
#include "ops/ngram_embed/plan.h"

namespace longcat::LONGCAT_ISA {
namespace {

/// Elements [begin, end) of a stored row, as float, to out[0 … end - begin).
void widenRow(const WeightView& table, int64_t row, int64_t begin, int64_t end, float* out) {
  const auto copy = [&](const auto* data) {
    forLanes(end - begin, [&](int64_t k, int n) { storeN(out + k, loadN(data + row * table.columns + begin + k, n), n); });
  };
  if (table.dtype == DType::bf16) copy(static_cast<const Bf16*>(table.data));
  else copy(static_cast<const float*>(table.data));
}

/// One tile: rows [first, last) × outputs [begin, end).
void embedTile(const NgramEmbedParams& p, int64_t first, int64_t last, int64_t begin, int64_t end, float* scratch) {
  const int64_t hidden = p.wordTable.columns, width = p.tables[0].columns, outputs = end - begin;
  const NgramTables hash{p.wordTable.rows, p.neighbors, p.splits, p.endId, p.numTables};
  float* gathered = scratch;
  float* projected = scratch + kNgramRows * width;
  const auto historyOf = [&](int64_t r) { return p.history + p.rowSlot[r] * p.historyStride; };
  for (int64_t r = first; r < last; ++r) widenRow(p.wordTable, historyOf(r)[p.positions[r]], begin, end, p.out + r * hidden + begin);
  for (int i = 0; i < p.numTables; ++i) {
    const WeightView projection{p.projectionData[i], nullptr, hidden, width, p.projectionDtype};
    for (int64_t r = first; r < last; ++r) {
      const int64_t id = ngramId(historyOf(r), p.positions[r], hash, i / p.splits + 2, p.tables[i].rows);
      widenRow(p.tables[i], id, 0, width, gathered + (r - first) * width);
    }
    gemm(gathered, width, nullptr, last - first, projection, begin, end, projected - begin, kNgramOutputs);  // columns count from output 0
    for (int64_t r = first; r < last; ++r) {
      float* out = p.out + r * hidden + begin;
      const float* part = projected + (r - first) * kNgramOutputs;
      forLanes(outputs, [&](int64_t k, int n) { storeN(out + k, add(loadN(out + k, n), loadN(part + k, n)), n); });
    }
  }
  const Vec count = set1(static_cast<float>(1 + p.numTables));
  for (int64_t r = first; r < last; ++r) {
    float* out = p.out + r * hidden + begin;
    forLanes(outputs, [&](int64_t k, int n) { storeN(out + k, div(loadN(out + k, n), count), n); });
  }
}

}  // namespace

void ngram_embed(const void* params, const CpuContext& context) {
  const auto& p = *static_cast<const NgramEmbedParams*>(params);
  const int64_t rows = liveRows(p.rows, p.capacity), hidden = p.wordTable.columns;
  const int64_t chunks = (hidden + kNgramOutputs - 1) / kNgramOutputs, blocks = (rows + kNgramRows - 1) / kNgramRows;
  forTasks(context, chunks * blocks, [&](int64_t task, int thread) {
    const int64_t first = task / chunks * kNgramRows, begin = task % chunks * kNgramOutputs;
    embedTile(p, first, smaller(rows, first + kNgramRows), begin, smaller(hidden, begin + kNgramOutputs), context.scratch<float>(thread));
  });
}

}  // namespace longcat::LONGCAT_ISA
