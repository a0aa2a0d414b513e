// linear_backward against central differences in float64, and the same bits on any number of threads. Sums of up to 30 products of
// numbers within ±1 in float: 2e-6 leaves room for them and for a gradient that was there before.
#include "ops/gradcheck.h"

using namespace longcat;
using namespace longcat::gradcheck;

LONGCAT_TEST(linear_backward) {
  struct Size { int64_t rows, outputs, inputs; };
  for (const auto [T, outputs, inputs] : {Size{1, 1, 1}, Size{3, 5, 7}, Size{7, 2, 17}, Size{13, 9, 30}}) {
    const Tensor wide = t.randomF32({T, inputs + 2}), x = t.columns(wide, 1, inputs), rows = t.i32({1}, {static_cast<int32_t>(T)});
    const Tensor weight = t.randomF32({outputs, inputs}), bias = t.randomF32({1, outputs}), dOut = t.randomF32({T, outputs});
    const std::vector<float> before = t.randomFloats(outputs * inputs), biasBefore = t.randomFloats(outputs);

    Doubles xs = doubles(t.floats(x)), ws = doubles(t.floats(weight)), bs = doubles(t.floats(bias));
    const Doubles direction = doubles(t.floats(dOut));
    const auto loss = [&] {
      Doubles out = product(xs, ws, static_cast<size_t>(inputs));
      for (size_t i = 0; i < out.size(); ++i) out[i] += bs[i % bs.size()];
      return dot(out, direction);
    };
    const std::vector<float> wantX = differences(xs, loss), wantW = plus(before, differences(ws, loss)), wantB = plus(biasBefore, differences(bs, loss));

    for (Isa isa : t.isasOf("linear_backward")) {
      const Tensor dX = t.f32({T, inputs}), dW = t.f32({outputs, inputs}, before), dB = t.f32({1, outputs}, biasBefore);
      t.run(isa, "linear_backward", args({&x, &weight, &dW, &bias, &dB, &dOut, &dX, &rows}));
      t.expectClose("dx", t.floats(dX), wantX, 2e-6);
      t.expectClose("dW, added", t.floats(dW), wantW, 2e-6);
      t.expectClose("dbias, added", t.floats(dB), wantB, 2e-6);
    }
  }
}

// Tiles, strips and tasks with tails, rows that are not live, and every number of threads.
LONGCAT_TEST(linear_backward) {
  const int64_t T = 301, outputs = 150, inputs = 213;
  const int32_t live = 300;
  const Tensor x = t.randomF32({T, inputs}), weight = t.randomF32({outputs, inputs}), dOut = t.randomF32({T, outputs}), rows = t.i32({1}, {live});
  const std::vector<float> xs = t.floats(x), ws = t.floats(weight), ds = t.floats(dOut);
  std::vector<float> wantX, wantW;
  for (int64_t r = 0; r < live; ++r) {
    for (int64_t k = 0; k < inputs; ++k) {
      double sum = 0;
      for (int64_t o = 0; o < outputs; ++o) sum += static_cast<double>(ds[r * outputs + o]) * ws[o * inputs + k];
      wantX.push_back(static_cast<float>(sum));
    }
  }
  for (int64_t o = 0; o < outputs; ++o) {
    for (int64_t k = 0; k < inputs; ++k) {
      double sum = 0;
      for (int64_t r = 0; r < live; ++r) sum += static_cast<double>(ds[r * outputs + o]) * xs[r * inputs + k];
      wantW.push_back(static_cast<float>(sum));
    }
  }
  for (Isa isa : t.isasOf("linear_backward")) {
    std::vector<float> firstX, firstW;
    for (int threads : {1, 2, 3}) {
      const Tensor dX = t.f32({T, inputs}), dW = t.f32({outputs, inputs});
      t.run(isa, "linear_backward", args({&x, &weight, &dW, nullptr, nullptr, &dOut, &dX, &rows}), threads);
      std::vector<float> gotX = t.floats(dX), gotW = t.floats(dW);
      t.expect(std::isnan(gotX[static_cast<size_t>(live * inputs)]), "rows beyond the live ones stay as they were");
      gotX.resize(wantX.size());
      t.expectClose("dx of many rows", gotX, wantX, 2e-5);
      t.expectClose("dW of many rows", gotW, wantW, 2e-5);
      if (threads == 1) firstX = gotX, firstW = gotW;
      t.expectSameBits("dx on " + std::to_string(threads) + " threads", gotX, firstX);
      t.expectSameBits("dW on " + std::to_string(threads) + " threads", gotW, firstW);
    }
  }
}

LONGCAT_TEST(linear_backward) {
  const Tensor x = t.f32({2, 8}), dOut = t.f32({2, 4}), dX = t.f32({2, 8}), rows = t.i32({1}, {2}), weight = t.f32({4, 8}), dW = t.f32({4, 8});
  const Tensor narrow = t.f32({4, 7}), half = t.bf16({4, 8}, {});
  const auto run = [&](const Tensor* w, const Tensor* d) { t.run(Isa::plain, "linear_backward", args({&x, w, d, nullptr, nullptr, &dOut, &dX, &rows})); };
  t.expectThrows("a weight in bfloat16", "INTERNAL", "must be float32 to be trained", [&] { run(&half, &dW); });
  t.expectThrows("a gradient in bfloat16", "INTERNAL", "d_weight must be float32", [&] { run(&weight, &half); });
  t.expectThrows("a gradient of another width", "INTERNAL", "d_weight", [&] { run(&weight, &narrow); });
}
