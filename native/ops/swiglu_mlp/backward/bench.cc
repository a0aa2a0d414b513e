// swiglu_mlp_backward at mini's dense FFN. Floor: weights read, their gradients read and written, rows once; eight products (two of them the
// forward's again) of two operations a weight and row of a matrix.
#include "ops/bench_training.h"

using namespace longcat;
using namespace longcat::bench;

LONGCAT_BENCH(swiglu_mlp_backward) {
  for (const ModelShape* m : trainedModels(b)) {
    const int64_t width = m->hidden, ffn = m->ffn;
    const Tensor gate = f32(b, {ffn, width}), up = f32(b, {ffn, width}), down = f32(b, {width, ffn});
    const Tensor dGate = f32(b, {ffn, width}), dUp = f32(b, {ffn, width}), dDown = f32(b, {width, ffn});
    for (int64_t T : b.tokens(4096)) {
      const double flops = 16 * number(T) * number(width * ffn);
      if (b.tooMuch(flops)) continue;
      const Tensor x = f32(b, {T, width}), dOut = f32(b, {T, width}), dX = room(b, {T, width}), rows = live(b, T);
      const Tensor g = room(b, {T, ffn}), u = room(b, {T, ffn}), hidden = room(b, {T, ffn});
      b.time({m, std::to_string(width) + " to " + std::to_string(ffn), T, "f32", bytesOfFloats(9 * number(width * ffn) + 3 * number(T * width)), flops},
             "swiglu_mlp_backward", args({&x, &gate, &dGate, &up, &dUp, &down, &dDown, &dOut, &dX, &g, &u, &hidden, &rows}));
    }
  }
}
