// ngram_embed at Lite's width. The tables are shorter than Lite's (which hold 2.6 million rows each). Floor: the projections' bytes.
#include "ops/harness_bench.h"

using namespace longcat;

LONGCAT_BENCH(ngram_embed) {
  const int64_t context = 8192;
  for (const ModelShape* m : b.models()) {
    if (m->ngramNeighbors == 0) continue;
    const int64_t numTables = (m->ngramNeighbors - 1) * m->ngramSplits, width = m->hidden / numTables, vocabulary = b.onGpu() ? m->vocabulary : 4096;
    const Tensor words = b.random(DType::bf16, {vocabulary, m->hidden});
    std::vector<bench::Weight> tables, projections;
    for (int64_t i = 0; i < numTables; ++i) {
      tables.push_back(b.weight(DType::bf16, 4 * vocabulary + 2 * i + 1, width));
      projections.push_back(b.weight(DType::bf16, m->hidden, width));
    }
    std::vector<int32_t> ids(static_cast<size_t>(context));
    for (int32_t& id : ids) id = 3 + static_cast<int32_t>(b.randomInteger(vocabulary - 3));
    const Tensor history = b.i32({1, context}, ids);
    for (int64_t T : b.tokens(context)) {
      std::vector<int32_t> positionOf(static_cast<size_t>(T));
      for (int64_t r = 0; r < T; ++r) positionOf[static_cast<size_t>(r)] = static_cast<int32_t>(r);
      const Tensor positions = b.i32({T}, positionOf), slots = b.i32({T}), out = b.empty(DType::f32, {T, m->hidden}), rows = b.i32({1}, {static_cast<int32_t>(T)});
      OpArgs a = args({&positions, &slots, &history, &words, &out, &rows},
                      {static_cast<double>(m->ngramNeighbors), static_cast<double>(m->ngramSplits), 2});
      for (int64_t i = 0; i < numTables; ++i) {
        a.tensor[a.numTensors++] = &tables[static_cast<size_t>(i)].data;
        a.tensor[a.numTensors++] = &projections[static_cast<size_t>(i)].data;
      }
      const double flops = 2.0 * static_cast<double>(T * numTables * m->hidden * width);
      if (b.tooMuch(flops)) continue;
      const double perRow = static_cast<double>(m->hidden) * (2 + 4) + static_cast<double>(numTables * width) * 2;
      b.time({m, std::to_string(numTables) + " tables of " + std::to_string(width), T, shortName(DType::bf16),
              static_cast<double>(numTables) * projections[0].bytes() + static_cast<double>(T) * perRow, flops},
             "ngram_embed", a);
    }
  }
}
