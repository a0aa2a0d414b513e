// rms_norm_backward against central differences in float64: 1e-5 where a row of 1 number makes its scale large, far less elsewhere.
#include "ops/gradcheck.h"

using namespace longcat;
using namespace longcat::gradcheck;

LONGCAT_TEST(rms_norm_backward) {
  const int64_t T = 3;
  for (int64_t width : {1, 5, 24, 40}) {
    const Tensor sum = t.randomF32({T, width}, -3, 3), weight = t.randomF32({1, width}, 0.5f, 1.5f), rows = t.i32({1}, {T});
    const Tensor dOut = t.randomF32({T, width}), dOut2 = t.randomF32({T, width}), dResidual = t.randomF32({T, width});
    const std::vector<float> before = t.randomFloats(width);
    for (const bool residual : {false, true}) {
      for (const bool second : {false, true}) {
        Doubles xs = doubles(t.floats(sum)), ws = doubles(t.floats(weight));
        Doubles direction = doubles(t.floats(dOut));
        const Doubles direction2 = doubles(t.floats(dOut2)), beside = doubles(t.floats(dResidual));
        if (second) for (size_t i = 0; i < direction.size(); ++i) direction[i] += direction2[i];
        const auto loss = [&] { return dot(norm(xs, ws, 1e-5), direction) + (residual ? dot(xs, beside) : 0); };
        const std::vector<float> wantX = differences(xs, loss), wantW = plus(before, differences(ws, loss));
        for (Isa isa : t.isasOf("rms_norm_backward")) {
          const Tensor dSum = t.f32({T, width}), dW = t.f32({1, width}, before), scales = t.f32({T});
          t.run(isa, "rms_norm_backward",
                args({&sum, &weight, &dW, &dOut, second ? &dOut2 : nullptr, residual ? &dResidual : nullptr, &dSum, &scales, &rows}, {1e-5}));
          t.expectClose("dsum", t.floats(dSum), wantX, 1e-5);
          t.expectClose("dweight, added", t.floats(dW), wantW, 1e-5);
          const Tensor inPlace = t.f32({T, width}, t.floats(residual ? dResidual : dOut)), dW2 = t.f32({1, width}, before);
          t.run(isa, "rms_norm_backward",
                args({&sum, &weight, &dW2, residual ? &dOut : &inPlace, second ? &dOut2 : nullptr, residual ? &inPlace : nullptr, &inPlace, &scales, &rows}, {1e-5}));
          t.expectSameBits("in place", t.floats(inPlace), t.floats(dSum));
          t.expectSameBits("dweight then", t.floats(dW2), t.floats(dW));
        }
      }
    }
  }
}

LONGCAT_TEST(rms_norm_backward) {
  const int64_t T = 300, width = 144;
  const Tensor sum = t.randomF32({T, width}), weight = t.randomF32({1, width}), dOut = t.randomF32({T, width}), rows = t.i32({1}, {T - 1});
  for (Isa isa : t.isasOf("rms_norm_backward")) {
    std::vector<float> first, firstW;
    for (int threads : {1, 2, 3}) {
      const Tensor dSum = t.f32({T, width}), dW = t.f32({1, width}), scales = t.f32({T});
      t.run(isa, "rms_norm_backward", args({&sum, &weight, &dW, &dOut, nullptr, nullptr, &dSum, &scales, &rows}, {1e-5}), threads);
      std::vector<float> got = t.floats(dSum);
      t.expect(std::isnan(got.back()), "rows beyond the live ones stay as they were");
      got.resize(static_cast<size_t>((T - 1) * width));
      if (threads == 1) first = got, firstW = t.floats(dW);
      t.expectSameBits("dsum on " + std::to_string(threads) + " threads", got, first);
      t.expectSameBits("dweight on " + std::to_string(threads) + " threads", t.floats(dW), firstW);
    }
  }
}
