// rms_norm against float64: adds in their order, norm, weight. A norm's error is that of a sum of squares in float, whose
// terms are all positive: some 1e-7 relative; 2e-6 leaves room for the longest row.
#include <cmath>

#include "ops/harness.h"

using namespace longcat;

namespace {

struct Wanted {
  std::vector<float> sum, out;
};

Wanted reference(const std::vector<float>& x, const std::vector<float>* add, const std::vector<float>* add2, const std::vector<float>& weight, double eps) {
  const size_t width = weight.size();
  Wanted want{x, x};
  for (size_t i = 0; i < x.size(); ++i) {
    if (add) want.sum[i] += (*add)[i];
    if (add2) want.sum[i] += (*add2)[i];
  }
  for (size_t r = 0; r < x.size(); r += width) {
    double squares = 0;
    for (size_t k = 0; k < width; ++k) squares += static_cast<double>(want.sum[r + k]) * want.sum[r + k];
    const double scale = 1 / std::sqrt(squares / static_cast<double>(width) + eps);
    for (size_t k = 0; k < width; ++k) want.out[r + k] = static_cast<float>(want.sum[r + k] * scale * weight[k]);
  }
  return want;
}

}  // namespace

LONGCAT_TEST(rms_norm) {
  const int64_t T = 3;
  for (int64_t width : {1, 5, 24, 40, 96, 144, 256, 1536, 6144, 9000}) {
    for (bool narrow : {false, true}) {
      const std::vector<float> values = t.randomFloats(width, 0.5f, 1.5f);
      const Tensor weight = narrow ? t.bf16({1, width}, values) : t.f32({1, width}, values);
      const Tensor x = t.randomF32({T, width}, -3, 3), a = t.randomF32({T, width}), b = t.randomF32({T, width}), rows = t.i32({1}, {T});
      const std::vector<float> xs = t.floats(x), ws = t.floats(weight);
      for (Isa isa : t.isas()) {
        const std::vector<float> as = t.asActivations(isa, t.floats(a)), bs = t.asActivations(isa, t.floats(b));
        for (int adds = 0; adds <= 2; ++adds) {
          const Wanted want = reference(xs, adds > 0 ? &as : nullptr, adds > 1 ? &bs : nullptr, ws, 1e-5);
          const Tensor* add = adds > 0 ? &a : nullptr;
          const Tensor* add2 = adds > 1 ? &b : nullptr;
          const Tensor sum = t.f32({T, width}), out = t.f32({T, width});
          t.run(isa, "rms_norm", args({&x, add, add2, &weight, &sum, &out, &rows}, {1e-5}));
          t.expectSameBits("the sum, added in order", t.floats(sum), want.sum);
          t.expectClose("the norm", t.floats(out), want.out, 2e-6);

          const Tensor alone = t.f32({T, width}), wide = t.f32({T, 2 * width + 1});
          const Tensor view = t.columns(wide, width, width), inPlace = t.f32({T, width}, xs);
          t.run(isa, "rms_norm", args({&x, add, add2, &weight, nullptr, &alone, &rows}, {1e-5}));
          t.expectSameBits("without a sum", t.floats(alone), t.floats(out));
          t.run(isa, "rms_norm", args({&inPlace, add, add2, &weight, &inPlace, &view, &rows}, {1e-5}));
          t.expectSameBits("sum in place of x, out as columns", t.floats(view), t.floats(out));
          t.expectSameBits("the sum in place", t.floats(inPlace), want.sum);
          t.expect(t.floats(wide)[0] == 0 && t.floats(wide).back() == 0, "columns beside the view stay as they were");
        }
      }
    }
  }
}

LONGCAT_TEST(rms_norm) {
  const int64_t T = 300, width = 144;
  const Tensor x = t.randomF32({T, width}), weight = t.randomF32({1, width});
  const Tensor all = t.i32({1}, {T}), few = t.i32({1}, {2}), none = t.i32({1}, {0});
  for (Isa isa : t.isas()) {
    const Tensor whole = t.f32({T, width}), part = t.f32({T, width});
    t.run(isa, "rms_norm", args({&x, nullptr, nullptr, &weight, nullptr, &whole, &all}, {1e-6}), 1);
    const std::vector<float> want = t.floats(whole);
    for (int threads : {2, 3}) {
      t.run(isa, "rms_norm", args({&x, nullptr, nullptr, &weight, nullptr, &part, &all}, {1e-6}), threads);
      t.expectSameBits("bits on " + std::to_string(threads) + " threads", t.floats(part), want);
    }
    t.run(isa, "rms_norm", args({&x, nullptr, nullptr, &weight, nullptr, &part, &few}, {1e-6}));
    t.expectSameBits("bits with two rows live", part.data, whole.data, 2 * width * sizeof(float));
    t.expect(std::isnan(t.floats(part)[2 * width]), "rows beyond the live ones stay as they were");
    t.run(isa, "rms_norm", args({&x, nullptr, nullptr, &weight, nullptr, &part, &none}, {1e-6}));
    t.expect(std::isnan(t.floats(part)[0]), "no rows: nothing is written");
  }
}

// Where the residual stream itself is bfloat16: the sum is rounded before it is normed, as what is stored is.
LONGCAT_TEST(rms_norm) {
  const int64_t T = 3;
  for (Isa isa : t.isas()) {
    if (t.exact(isa)) continue;
    for (int64_t width : {1, 5, 24, 96, 144, 1536, 9000}) {
      const std::vector<float> ws = t.asActivations(isa, t.randomFloats(width, 0.5f, 1.5f));
      const Tensor weight = t.bf16({1, width}, ws), rows = t.i32({1}, {2});
      const Tensor x = t.randomBf16({T, width}, -3, 3), add = t.f32({T, width}, t.asActivations(isa, t.randomFloats(T * width)));
      const Tensor sum = t.bf16({T, width}, {}), out = t.f32({T, width}), alone = t.f32({T, width});
      const std::vector<float> as = t.floats(add), sums = t.asActivations(isa, reference(t.floats(x), &as, nullptr, ws, 1e-5).sum);
      const Wanted want = reference(sums, nullptr, nullptr, ws, 1e-5);
      t.run(isa, "rms_norm", args({&x, &add, nullptr, &weight, &sum, &out, &rows}, {1e-5}));
      const std::vector<float> got = t.floats(out), kept = t.floats(sum);
      const auto live = [width](const std::vector<float>& all) { return std::vector<float>(all.begin(), all.begin() + 2 * width); };
      t.expectSameBits("a bfloat16 sum", live(kept), live(sums));
      t.expectClose("the norm of a bfloat16 stream", live(got), live(want.out), 4e-3);
      t.expect(std::isnan(got[2 * width]) && std::isnan(kept[2 * width]), "rows beyond the live ones stay as they were");
      t.run(isa, "rms_norm", args({&x, &add, nullptr, &weight, nullptr, &alone, &rows}, {1e-5}));
      t.expectSameBits("without a sum", live(t.floats(alone)), live(got));
      t.run(isa, "rms_norm", args({&x, &add, nullptr, &weight, &x, &alone, &rows}, {1e-5}));
      t.expectSameBits("the sum in place of x", live(t.floats(x)), live(sums));
      t.expectSameBits("its norm", live(t.floats(alone)), live(got));
    }
  }
}
