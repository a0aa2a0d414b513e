// rms_norm with one add, the sum in place. Floor: stream, add in; stream, norm out.
#include "ops/harness_bench.h"

using namespace longcat;

LONGCAT_BENCH(rms_norm) {
  for (const ModelShape* m : b.models()) {
    const Tensor weight = b.random(b.weightDtypes(*m)[0], {1, m->hidden}, 0.5f, 1.5f);
    for (int64_t T : b.tokens()) {
      const Tensor x = b.random(DType::f32, {T, m->hidden}), add = b.random(b.activation(), {T, m->hidden}, -1e-3f, 1e-3f);
      const Tensor out = b.activations({T, m->hidden}), rows = b.i32({1}, {static_cast<int32_t>(T)});
      const auto numbers = static_cast<double>(T * m->hidden);
      b.time({m, std::to_string(m->hidden), T, "", numbers * (8.0 + 2.0 * static_cast<double>(bytesOf(b.activation()))), 5 * numbers}, "rms_norm",
             args({&x, &add, nullptr, &weight, &x, &out, &rows}, {1e-5}));
    }
  }
}
