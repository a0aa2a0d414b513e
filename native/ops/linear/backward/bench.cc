// linear_backward at mini's output projection and head. Floor: weight read, its gradient read and written, rows once; four operations a
// weight and row.
#include "ops/bench_training.h"

using namespace longcat;
using namespace longcat::bench;

LONGCAT_BENCH(linear_backward) {
  for (const ModelShape* m : trainedModels(b)) {
    struct Size { const char* what; int64_t outputs, inputs; };
    for (const auto [what, outputs, inputs] : {Size{"o", m->hidden, m->heads * m->vDim}, Size{"head", m->vocabulary, m->hidden}}) {
      const Tensor weight = f32(b, {outputs, inputs}), dWeight = f32(b, {outputs, inputs});
      for (int64_t T : b.tokens(4096)) {
        const double products = number(T) * number(outputs * inputs);
        if (b.tooMuch(4 * products)) continue;
        const Tensor x = f32(b, {T, inputs}), dOut = f32(b, {T, outputs}), dX = room(b, {T, inputs}), rows = live(b, T);
        b.time({m, std::string(what) + " [" + std::to_string(outputs) + ", " + std::to_string(inputs) + "]", T, "f32",
                bytesOfFloats(3 * number(outputs * inputs) + number(T * (2 * inputs + outputs))), 4 * products},
               "linear_backward", args({&x, &weight, &dWeight, nullptr, nullptr, &dOut, &dX, &rows}));
      }
    }
  }
}
