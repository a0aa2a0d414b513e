// hidden_z_loss at mini's width. Floor: the hidden state read, its gradient read and written.
#include "ops/bench_training.h"

using namespace longcat;
using namespace longcat::bench;

LONGCAT_BENCH(hidden_z_loss) {
  for (const ModelShape* m : trainedModels(b)) {
    for (int64_t T : b.tokens()) {
      const double numbers = number(T * m->hidden);
      const Tensor x = f32(b, {T, m->hidden}), scale = f32(b, {1}), loss = room(b, {T}), dX = f32(b, {T, m->hidden}), rows = live(b, T);
      b.time({m, std::to_string(m->hidden), T, "", bytesOfFloats(3 * numbers), 20 * numbers}, "hidden_z_loss", args({&x, &scale, &loss, &dX, &rows}));
    }
  }
}
