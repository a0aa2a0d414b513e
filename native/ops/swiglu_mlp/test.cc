// swiglu_mlp against float64. Three products in a row, each near 1 in size: 5e-6.
#include "ops/reference.h"

using namespace longcat;
using namespace longcat::reference;

namespace {

struct Mlp {
  Weight gate, up, down;
};
Mlp randomMlp(TestContext& t, DType dtype, int64_t width, int64_t ffn) {
  return {randomWeight(t, dtype, ffn, width), randomWeight(t, dtype, ffn, width), randomWeight(t, dtype, width, ffn)};
}
OpArgs argsOf(const Mlp& m, const Tensor& x, const Tensor& hidden, const Tensor& out, const Tensor& rows) {
  return args({&x, &m.gate.data, m.gate.scales(), &m.up.data, m.up.scales(), &m.down.data, m.down.scales(), &hidden, &out, &rows});
}

}  // namespace

LONGCAT_TEST(swiglu_mlp) {
  struct Size { int64_t width, ffn; };
  for (const auto [width, ffn] : {Size{7, 5}, Size{24, 48}, Size{96, 130}, Size{144, 288}, Size{256, 512}}) {
    for (DType dtype : kWeightDtypes) {
      const Mlp mlp = randomMlp(t, dtype, width, ffn);
      for (int64_t T : t.fewOrAll<int64_t>({4, 60}, {1, 4, 60})) {
        const Tensor x = t.randomF32({T, width}, -4, 4), rows = t.i32({1}, {static_cast<int32_t>(T)});
        const std::vector<float> xs = t.floats(x);
        std::vector<float> want;
        for (int64_t r = 0; r < T; ++r) {
          for (double y : swiglu(mlp.gate.values, mlp.up.values, mlp.down.values, xs.data() + r * width, width)) want.push_back(static_cast<float>(y));
        }
        for (Isa isa : t.isas()) {
          const Tensor hidden = t.f32({T, ffn}), out = t.f32({T, width});
          t.run(isa, "swiglu_mlp", argsOf(mlp, x, hidden, out, rows));
          t.expectClose(describe(dtype, T, ffn, width), t.floats(out), want, 5e-6);
        }
      }
    }
  }
}

// Values from saturation to saturation: the gate is the identity, so that silu sees x itself. silu's own error: 3 ulp.
LONGCAT_TEST(swiglu_mlp) {
  const std::vector<float> zs = {0.0f, -0.0f, 1e-30f, -1e-4f, 0.5f, -1.0f, 3.0f, -8.0f, 20.0f, -20.0f, 80.0f, -85.0f, -100.0f, -300.0f, 1000.0f};
  const int64_t n = static_cast<int64_t>(zs.size());
  std::vector<float> identity(static_cast<size_t>(n * n));
  for (int64_t i = 0; i < n; ++i) identity[static_cast<size_t>(i * n + i)] = 1;
  const Tensor gate = t.f32({n, n}, identity), up = t.f32({n, n + 0}, std::vector<float>(static_cast<size_t>(n * n))), one = t.i32({1}, {1});
  // up: every output takes the last element, 1000, times 1/1000.
  auto* ups = reinterpret_cast<float*>(up.data);
  for (int64_t i = 0; i < n; ++i) ups[i * n + n - 1] = 0.001f;
  const Tensor x = t.f32({1, n}, zs);
  for (Isa isa : t.isas()) {
    const Tensor hidden = t.f32({1, n}), out = t.f32({1, n});
    t.run(isa, "swiglu_mlp", args({&x, &gate, nullptr, &up, nullptr, &gate, nullptr, &hidden, &out, &one}));
    const std::vector<float> got = t.floats(hidden);
    const double factor = 1000.0f * 0.001f;
    for (int64_t i = 0; i < n; ++i) {
      const double want = silu(zs[static_cast<size_t>(i)]) * static_cast<float>(factor);
      t.expect(std::abs(got[static_cast<size_t>(i)] - want) <= (t.exact(isa) ? 4e-7 : kBf16Tolerance) * std::abs(want) + 1e-37,
               "silu(" + std::to_string(zs[static_cast<size_t>(i)]) + ") is " + std::to_string(got[static_cast<size_t>(i)]) + ", wanted " + std::to_string(want));
    }
  }
}

LONGCAT_TEST(swiglu_mlp) {
  const int64_t T = 70, width = 144, ffn = 700;
  for (DType dtype : kWeightDtypes) {
    const Mlp mlp = randomMlp(t, dtype, width, ffn);
    const Tensor x = t.randomF32({T, width}), all = t.i32({1}, {T});
    for (Isa isa : t.isas()) {
      const Tensor hidden = t.f32({T, ffn}), whole = t.f32({T, width}), out = t.f32({T, width});
      t.run(isa, "swiglu_mlp", argsOf(mlp, x, hidden, whole, all), 1);
      for (int threads : t.fewOrAll({2}, {1, 2, 3})) {
        for (int32_t R : {1, 3, 17, 70}) {
          const Tensor rows = t.i32({1}, {R});
          t.run(isa, "swiglu_mlp", argsOf(mlp, x, hidden, out, rows), threads);
          t.expectSameBits("bits of " + std::to_string(R) + " rows on " + std::to_string(threads) + " threads", out.data, whole.data,
                           static_cast<size_t>(R * width) * sizeof(float));
          t.expect(R == T || std::isnan(t.floats(out)[static_cast<size_t>(R * width)]), "rows beyond the live ones stay as they were");
        }
      }
    }
  }
}

// Widths that tensor cores take, ragged at a GPU's tiles of outputs; every capacity a tile of its own: right, and the same bits.
LONGCAT_TEST(swiglu_mlp) {
  const int64_t most = 150;
  struct Size { int64_t width, ffn; };
  for (const auto [width, ffn] : {Size{128, 384}, Size{256, 1152}, Size{1056, 160}}) {
    for (DType dtype : kWeightDtypes) {
      const Mlp mlp = randomMlp(t, dtype, width, ffn);
      const std::vector<float> xs = t.randomFloats(most * width, -4, 4);
      std::vector<float> want;
      for (int64_t r = 0; r < most; ++r) {
        for (double y : swiglu(mlp.gate.values, mlp.up.values, mlp.down.values, xs.data() + r * width, width)) want.push_back(static_cast<float>(y));
      }
      for (Isa isa : t.isas()) {
        std::vector<float> widest;
        for (int64_t T : t.fewOrAll<int64_t>({150, 1, 16, 17, 33, 65}, {150, 1, 8, 9, 16, 17, 33, 65})) {
          const Tensor x = t.f32({T, width}, {xs.begin(), xs.begin() + T * width}), rows = t.i32({1}, {static_cast<int32_t>(T)});
          const Tensor hidden = t.f32({T, ffn}), out = t.f32({T, width});
          t.run(isa, "swiglu_mlp", argsOf(mlp, x, hidden, out, rows));
          const std::vector<float> got = t.floats(out);
          if (T == most) {
            t.expectClose(describe(dtype, T, ffn, width), got, want, 5e-6);
            widest = got;
          } else {
            t.expectSameBits(describe(dtype, T, ffn, width) + ": as with room for more", got, {widest.begin(), widest.begin() + T * width});
          }
        }
      }
    }
  }
}
