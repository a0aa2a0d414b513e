// rms_norm_backward of the residual stream, in place. Floor: sum, dout and the stream's gradient read, that written.
#include "ops/bench_training.h"

using namespace longcat;
using namespace longcat::bench;

LONGCAT_BENCH(rms_norm_backward) {
  for (const ModelShape* m : trainedModels(b)) {
    const Tensor weight = f32(b, {1, m->hidden}), dWeight = f32(b, {1, m->hidden});
    for (int64_t T : b.tokens()) {
      const double numbers = number(T * m->hidden);
      const Tensor sum = f32(b, {T, m->hidden}), dOut = f32(b, {T, m->hidden}), dX = f32(b, {T, m->hidden}), scales = room(b, {T}), rows = live(b, T);
      b.time({m, std::to_string(m->hidden), T, "", bytesOfFloats(4 * numbers), 12 * numbers}, "rms_norm_backward",
             args({&sum, &weight, &dWeight, &dOut, nullptr, &dX, &dX, &scales, &rows}, {1e-5}));
    }
  }
}
