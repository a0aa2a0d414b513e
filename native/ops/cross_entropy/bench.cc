// cross_entropy over mini's vocabulary, its gradient in place. Floor: logits read, their gradient written.
#include "ops/bench_training.h"

using namespace longcat;
using namespace longcat::bench;

LONGCAT_BENCH(cross_entropy) {
  for (const ModelShape* m : trainedModels(b)) {
    for (int64_t T : b.tokens()) {
      const double numbers = number(T * m->vocabulary);
      const Tensor logits = f32(b, {T, m->vocabulary}), targets = b.i32({T}), scale = f32(b, {1}), loss = room(b, {T}), rows = live(b, T);
      b.time({m, std::to_string(m->vocabulary), T, "", bytesOfFloats(2 * numbers), 30 * numbers}, "cross_entropy",
             args({&logits, &targets, &scale, &loss, &logits, &rows}));
    }
  }
}
