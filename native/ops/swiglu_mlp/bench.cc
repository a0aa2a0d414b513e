// swiglu_mlp of each model's dense layers. Floor: the three matrices' bytes at few rows, their products at many.
#include "ops/harness_bench.h"

using namespace longcat;

LONGCAT_BENCH(swiglu_mlp) {
  for (const ModelShape* m : b.models()) {
    for (DType dtype : b.weightDtypes(*m)) {
      const int64_t width = m->hidden, ffn = m->ffn;
      const bench::Weight gate = b.weight(dtype, ffn, width), up = b.weight(dtype, ffn, width), down = b.weight(dtype, width, ffn);
      for (int64_t T : b.tokens()) {
        const double flops = 6.0 * static_cast<double>(T) * static_cast<double>(width * ffn);
        if (b.tooMuch(flops)) continue;
        const Tensor x = b.randomActivations({T, width}), hidden = b.activations({T, ffn}), out = b.activations({T, width});
        const Tensor rows = b.i32({1}, {static_cast<int32_t>(T)});
        const double bytes = 3 * gate.bytes() + 2.0 * static_cast<double>(T * width) * static_cast<double>(bytesOf(b.activation()));
        b.time({m, std::to_string(width) + " to " + std::to_string(ffn), T, shortName(dtype), bytes, flops}, "swiglu_mlp",
               args({&x, &gate.data, gate.scales(), &up.data, up.scales(), &down.data, down.scales(), &hidden, &out, &rows}));
      }
    }
  }
}
