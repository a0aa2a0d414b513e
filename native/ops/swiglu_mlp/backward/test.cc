// swiglu_mlp_backward against central differences in float64: three products in a row in float, 1e-5.
#include "ops/gradcheck.h"
#include "ops/reference.h"

using namespace longcat;
using namespace longcat::gradcheck;

LONGCAT_TEST(swiglu_mlp_backward) {
  struct Size { int64_t rows, width, ffn; };
  for (const auto [T, width, ffn] : {Size{1, 1, 1}, Size{3, 5, 7}, Size{5, 18, 20}}) {
    const Tensor x = t.randomF32({T, width}, -2, 2), dOut = t.randomF32({T, width}), rows = t.i32({1}, {static_cast<int32_t>(T)});
    const Tensor gate = t.randomF32({ffn, width}), up = t.randomF32({ffn, width}), down = t.randomF32({width, ffn});
    const std::vector<float> before = t.randomFloats(ffn * width);

    Doubles xs = doubles(t.floats(x)), gs = doubles(t.floats(gate)), us = doubles(t.floats(up)), ds = doubles(t.floats(down));
    const Doubles direction = doubles(t.floats(dOut));
    const auto loss = [&, width = width, ffn = ffn] {
      Doubles hidden = product(xs, gs, static_cast<size_t>(width));
      const Doubles u = product(xs, us, static_cast<size_t>(width));
      for (size_t i = 0; i < hidden.size(); ++i) hidden[i] = reference::silu(hidden[i]) * u[i];
      return dot(product(hidden, ds, static_cast<size_t>(ffn)), direction);
    };
    const std::vector<float> wantX = differences(xs, loss), wantG = plus(before, differences(gs, loss)), wantU = plus(before, differences(us, loss)),
                             wantD = plus(before, differences(ds, loss));
    for (Isa isa : t.isasOf("swiglu_mlp_backward")) {
      const Tensor dX = t.f32({T, width}), a = t.f32({T, ffn}), b = t.f32({T, ffn}), c = t.f32({T, ffn});
      const Tensor dG = t.f32({ffn, width}, before), dU = t.f32({ffn, width}, before), dD = t.f32({width, ffn}, before);
      t.run(isa, "swiglu_mlp_backward", args({&x, &gate, &dG, &up, &dU, &down, &dD, &dOut, &dX, &a, &b, &c, &rows}));
      t.expectClose("dx", t.floats(dX), wantX, 1e-5);
      t.expectClose("dgate, added", t.floats(dG), wantG, 1e-5);
      t.expectClose("dup, added", t.floats(dU), wantU, 1e-5);
      t.expectClose("ddown, added", t.floats(dD), wantD, 1e-5);
    }
  }
}

LONGCAT_TEST(swiglu_mlp_backward) {
  const int64_t T = 130, width = 70, ffn = 150;
  const Tensor x = t.randomF32({T, width}), dOut = t.randomF32({T, width}), rows = t.i32({1}, {T});
  const Tensor gate = t.randomF32({ffn, width}), up = t.randomF32({ffn, width}), down = t.randomF32({width, ffn});
  for (Isa isa : t.isasOf("swiglu_mlp_backward")) {
    std::vector<float> first;
    for (int threads : {1, 2, 3}) {
      const Tensor dX = t.f32({T, width}), a = t.f32({T, ffn}), b = t.f32({T, ffn}), c = t.f32({T, ffn});
      const Tensor dG = t.f32({ffn, width}), dU = t.f32({ffn, width}), dD = t.f32({width, ffn});
      t.run(isa, "swiglu_mlp_backward", args({&x, &gate, &dG, &up, &dU, &down, &dD, &dOut, &dX, &a, &b, &c, &rows}), threads);
      const std::vector<float> all = joined(t, {&dX, &dG, &dU, &dD});
      if (threads == 1) first = all;
      t.expectSameBits("all gradients on " + std::to_string(threads) + " threads", all, first);
    }
  }
}
