// ngram_embed at Lite's size (hidden 3072, 12 tables 256 wide) and a small one. Floor: the projections' bytes; tables are short here.
#include "ops/bench_weights.h"

using namespace longcat;

LONGCAT_BENCH(ngram_embed) {
  const int64_t vocabulary = 4096, context = 512;
  const int32_t neighbors = 4, splits = 4, numTables = 12;
  for (int64_t width : {24, 256}) {
    const int64_t hidden = width * numTables;
    const bench::Weight words = bench::weight(b, DType::bf16, vocabulary, hidden);
    std::vector<bench::Weight> tables, projections;
    for (int i = 0; i < numTables; ++i) {
      tables.push_back(bench::weight(b, DType::bf16, 4 * vocabulary + 2 * i + 1, width));
      projections.push_back(bench::weight(b, DType::bf16, hidden, width));
    }
    std::vector<int32_t> ids(static_cast<size_t>(context));
    for (int32_t& id : ids) id = 3 + static_cast<int32_t>(b.randomInteger(vocabulary - 3));
    const Tensor history = b.i32({1, context}, ids);
    for (int32_t R : {1, 16, 256}) {
      std::vector<int32_t> positionOf(static_cast<size_t>(R));
      for (int32_t r = 0; r < R; ++r) positionOf[static_cast<size_t>(r)] = r;
      const Tensor positions = b.i32({R}, positionOf), slots = b.i32({R}), out = b.f32({R, hidden}), rows = b.i32({1}, {R});
      OpArgs a = args({&positions, &slots, &history, &words.data, &out, &rows}, {static_cast<double>(neighbors), static_cast<double>(splits), 2});
      for (int i = 0; i < numTables; ++i) {
        a.tensor[a.numTensors++] = &tables[static_cast<size_t>(i)].data;
        a.tensor[a.numTensors++] = &projections[static_cast<size_t>(i)].data;
      }
      b.time(std::to_string(R) + " x " + std::to_string(hidden), "ngram_embed", a, numTables * projections[0].bytes(),
             2.0 * R * numTables * static_cast<double>(hidden * width));
    }
  }
}
