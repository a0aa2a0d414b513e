// ngram_embed_backward with Lite's twelve tables at mini's width, rounded to them; the tables are far shorter than Lite's. Floor: projections
// read, their gradients read and written, rows once; four operations a weight of a projection and row.
#include "ops/bench_training.h"

using namespace longcat;
using namespace longcat::bench;

LONGCAT_BENCH(ngram_embed_backward) {
  const int64_t context = 8192, neighbors = 4, splits = 4, numTables = (neighbors - 1) * splits;
  for (const ModelShape* m : trainedModels(b)) {
    const int64_t width = m->hidden / numTables, hidden = width * numTables;
    const Tensor dWords = f32(b, {m->vocabulary, hidden});
    std::vector<Tensor> tensors;  // by table: rows, their gradient, projection, its gradient
    for (int64_t i = 0; i < numTables; ++i) {
      for (int64_t rows : {4 * m->vocabulary + 2 * i + 1, hidden}) tensors.push_back(f32(b, {rows, width})), tensors.push_back(f32(b, {rows, width}));
    }
    std::vector<int32_t> ids(static_cast<size_t>(context));
    for (int32_t& id : ids) id = 3 + static_cast<int32_t>(b.randomInteger(m->vocabulary - 3));
    const Tensor history = b.i32({1, context}, ids);
    for (int64_t T : b.tokens(context)) {
      std::vector<int32_t> positionOf;
      for (int64_t r = 0; r < T; ++r) positionOf.push_back(static_cast<int32_t>(r));
      const Tensor positions = b.i32({T}, positionOf), slots = b.i32({T}), dOut = f32(b, {T, hidden}), rows = live(b, T);
      OpArgs a = args({&positions, &slots, &history, &dWords, &dOut, &rows}, {number(neighbors), number(splits), 2});
      for (const Tensor& tensor : tensors) a.tensor[a.numTensors++] = &tensor;
      const double projections = number(numTables * hidden * width);
      b.time({m, std::to_string(numTables) + " tables of " + std::to_string(width), T, "f32", bytesOfFloats(3 * projections + 4 * number(T * hidden)),
              4 * number(T) * projections},
             "ngram_embed_backward", a);
    }
  }
}
