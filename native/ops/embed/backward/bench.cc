// embed_backward at mini's width. Floor: gradients of the rows read, the table's rows read and written.
#include "ops/bench_training.h"

using namespace longcat;
using namespace longcat::bench;

LONGCAT_BENCH(embed_backward) {
  for (const ModelShape* m : trainedModels(b)) {
    const Tensor dTable = f32(b, {m->vocabulary, m->hidden});
    for (int64_t T : b.tokens()) {
      std::vector<int32_t> ids(static_cast<size_t>(T));
      for (int32_t& id : ids) id = static_cast<int32_t>(b.randomInteger(m->vocabulary));
      const Tensor tokens = b.i32({T}, ids), dOut = f32(b, {T, m->hidden}), rows = live(b, T);
      b.time({m, std::to_string(m->hidden), T, "", bytesOfFloats(3 * number(T * m->hidden)), number(T * m->hidden)}, "embed_backward",
             args({&tokens, &dTable, &dOut, &rows}));
    }
  }
}
