// linear against float64, and the bits of a row whatever its company. A dot product of n terms of size 1/√n · 1 in float
// has an error of some √n · 6e-8 / √n: 2e-6 leaves room for vectors, tails and scales.
#include <sys/mman.h>
#include <unistd.h>

#include <cmath>
#include <cstring>

#include "ops/reference.h"
#include "ops/weight.h"

using namespace longcat;
using namespace longcat::reference;

namespace {

std::vector<float> wantedOf(const Weight& w, const std::vector<float>& x, int64_t rows, int64_t inputs, const std::vector<float>* bias) {
  std::vector<float> want;
  for (int64_t r = 0; r < rows; ++r) {
    const std::vector<double> y = multiply(w.values, x.data() + r * inputs, inputs);
    for (size_t o = 0; o < y.size(); ++o) want.push_back(static_cast<float>(y[o] + (bias ? (*bias)[o] : 0)));
  }
  return want;
}

}  // namespace

// Shapes of tiny and real models, with tails of every kind: in k, in outputs, in blocks of scales.
LONGCAT_TEST(linear) {
  struct Size { int64_t outputs, inputs; };
  for (const auto [outputs, inputs] : {Size{1, 1}, Size{3, 7}, Size{5, 24}, Size{40, 96}, Size{99, 144}, Size{13, 130}, Size{130, 48}, Size{256, 256}, Size{20, 2100}}) {
    for (DType dtype : kWeightDtypes) {
      const Weight w = randomWeight(t, dtype, outputs, inputs);
      for (int64_t R : t.fewOrAll<int64_t>({1, 50}, {1, 2, 5, 7, 50})) {
        const std::string what = describe(dtype, R, outputs, inputs);
        const Tensor x = t.randomF32({R, inputs}), rows = t.i32({1}, {static_cast<int32_t>(R)});
        const std::vector<float> want = wantedOf(w, t.floats(x), R, inputs, nullptr);
        for (Isa isa : t.isas()) {
          const Tensor wide = t.f32({R, outputs + 2}), out = t.columns(wide, 1, outputs);
          t.run(isa, "linear", args({&x, nullptr, &w.data, w.scales(), nullptr, &out, &rows, nullptr}));
          t.expectClose(what, t.floats(out), want, 2e-6);
        }
      }
    }
  }
}

LONGCAT_TEST(linear) {
  const int64_t T = 6, R = 4, inputs = 40, outputs = 24;
  for (DType biasDtype : {DType::f32, DType::bf16}) {
    const Weight w = randomWeight(t, DType::bf16, outputs, inputs), bias = randomWeight(t, biasDtype, 1, outputs);
    const Tensor wide = t.randomF32({T, inputs + 5}), x = t.columns(wide, 5, inputs), rows = t.i32({1}, {3});
    const std::vector<float> xs = t.floats(x);
    const Tensor index = t.i32({R}, {5, 0, 2, 77777});  // the fourth is beyond the live rows
    std::vector<float> chosen;
    for (int64_t r : {5, 0, 2}) chosen.insert(chosen.end(), xs.begin() + r * inputs, xs.begin() + (r + 1) * inputs);
    const std::vector<float> want = wantedOf(w, chosen, 3, inputs, &bias.values);
    for (Isa isa : t.isas()) {
      const Tensor out = t.f32({R, outputs});
      t.run(isa, "linear", args({&x, &index, &w.data, nullptr, &bias.data, &out, &rows, nullptr}));
      const std::vector<float> got = t.floats(out);
      t.expectClose("chosen rows of a column view, with bias", {got.begin(), got.begin() + 3 * outputs}, want, 2e-6);
      t.expect(std::isnan(got[3 * outputs]), "rows beyond the live ones stay as they were");
    }
  }
}

// bfloat16 results are the float32 ones, rounded once, through every variant.
LONGCAT_TEST(linear) {
  struct Size { int64_t outputs, inputs; };
  for (Isa isa : t.isas()) {
    if (t.exact(isa)) continue;
    for (const auto [outputs, inputs] : {Size{1, 1}, Size{5, 24}, Size{40, 96}, Size{99, 144}, Size{130, 48}, Size{256, 256}, Size{20, 2100}}) {
      for (DType dtype : kWeightDtypes) {
        const Weight w = randomWeight(t, dtype, outputs, inputs);
        for (int64_t R : t.fewOrAll<int64_t>({7, 50}, {1, 2, 7, 50, 150})) {
          const Tensor x = t.randomF32({R + 1, inputs}), rows = t.i32({1}, {static_cast<int32_t>(R)});
          const Tensor wide = t.bf16({R + 1, outputs + 3}, {}), out = t.columns(wide, 1, outputs), exact = t.f32({R + 1, outputs});
          t.run(isa, "linear", args({&x, nullptr, &w.data, w.scales(), nullptr, &exact, &rows, nullptr}));
          t.run(isa, "linear", args({&x, nullptr, &w.data, w.scales(), nullptr, &out, &rows, nullptr}));
          std::vector<float> got = t.floats(out), want = t.asActivations(isa, t.floats(exact));
          t.expect(std::isnan(got[static_cast<size_t>(R * outputs)]), "rows beyond the live ones stay as they were");
          got.resize(static_cast<size_t>(R * outputs));
          want.resize(got.size());
          t.expectSameBits("in bfloat16: " + describe(dtype, R, outputs, inputs), got, want);
        }
      }
    }
  }
}

// numerics 2: one order of every sum, whatever runs beside it.
LONGCAT_TEST(linear) {
  if (t.brief()) return;  // the same kernels as in the test of edges below, thousands of times
  const int64_t T = 150;
  struct Size { int64_t outputs, inputs; };
  for (const auto [outputs, inputs] : {Size{53, 96}, Size{150, 144}, Size{600, 1100}}) {
    for (DType dtype : kWeightDtypes) {
      const Weight w = randomWeight(t, dtype, outputs, inputs);
      const Tensor x = t.randomF32({T, inputs});
      for (Isa isa : t.isas()) {
        std::vector<float> alone;
        for (int64_t r = 0; r < T; ++r) {
          const Tensor index = t.i32({1}, {static_cast<int32_t>(r)}), one = t.i32({1}, {1}), out = t.f32({1, outputs});
          t.run(isa, "linear", args({&x, &index, &w.data, w.scales(), nullptr, &out, &one, nullptr}), 1);
          const std::vector<float> row = t.floats(out);
          alone.insert(alone.end(), row.begin(), row.end());
        }
        for (int threads : {1, 2, 3}) {
          for (int32_t R : {2, 3, 4, 6, 7, 16, 48, 49, 150}) {
            const Tensor rows = t.i32({1}, {R}), out = t.f32({T, outputs});
            t.run(isa, "linear", args({&x, nullptr, &w.data, w.scales(), nullptr, &out, &rows, nullptr}), threads);
            t.expectSameBits(describe(dtype, R, outputs, inputs) + " on " + std::to_string(threads) + " threads: as each row alone", out.data,
                             alone.data(), static_cast<size_t>(R * outputs) * sizeof(float));
          }
        }
      }
    }
  }
}

namespace {

/// The tensor's numbers moved to the end of a page that no readable page follows.
Tensor atEndOfPage(const Tensor& tensor) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE)), bytes = static_cast<size_t>(tensor.elements()) * bytesOf(tensor.dtype);
  const size_t room = (bytes + page - 1) / page * page;
  void* memory = mmap(nullptr, room + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  require(memory != MAP_FAILED && mprotect(static_cast<char*>(memory) + room, page, PROT_NONE) == 0, "no guarded page");
  Tensor moved = tensor;
  moved.data = static_cast<std::byte*>(memory) + room - bytes;
  std::memcpy(moved.data, tensor.data, bytes);
  return moved;
}

}  // namespace

// Weights are the mapped file itself: a read past the last row's end would be a fault.
LONGCAT_TEST(linear) {
  for (int64_t inputs : {1, 7, 24, 48, 130}) {
    for (DType dtype : kWeightDtypes) {
      const Weight w = randomWeight(t, dtype, 5, inputs);
      const Tensor data = atEndOfPage(w.data);
      for (int64_t R : {1, 8}) {
        const Tensor x = atEndOfPage(t.randomF32({R, inputs})), rows = t.i32({1}, {static_cast<int32_t>(R)}), out = t.f32({R, 5});
        const std::vector<float> want = wantedOf(w, t.floats(x), R, inputs, nullptr);
        for (Isa isa : t.isas()) {
          t.run(isa, "linear", args({&x, nullptr, &data, w.scales(), nullptr, &out, &rows, nullptr}));
          t.expectClose("at the end of a page: " + describe(dtype, R, 5, inputs), t.floats(out), want, 2e-6);
        }
      }
    }
  }
}

// Every e4m3 code times its block's scale, through a product with 1.
LONGCAT_TEST(linear) {
  const Tensor codes = t.empty(DType::f8e4m3, {256, 1}), scale = t.f32({2, 1}, {0.25f, 3.0f}), x = t.f32({1, 1}, {1.0f}), rows = t.i32({1}, {1});
  for (int c = 0; c < 256; ++c) codes.data[c] = static_cast<std::byte>(c);
  const std::vector<float> want = t.floats(codes, &scale);
  for (Isa isa : t.isas()) {
    const Tensor out = t.f32({1, 256});
    t.run(isa, "linear", args({&x, nullptr, &codes, &scale, nullptr, &out, &rows, nullptr}));
    const std::vector<float> got = t.floats(out);
    for (size_t c = 0; c < 256; ++c) {
      const bool same = got[c] == want[c] || (std::isnan(got[c]) && std::isnan(want[c]));
      t.expect(same, "e4m3 code " + std::to_string(c) + " is " + std::to_string(got[c]) + ", wanted " + std::to_string(want[c]));
    }
  }
}

LONGCAT_TEST(linear) {
  const Tensor x = t.f32({2, 8}), out = t.f32({2, 4}), rows = t.i32({1}, {2}), narrow = t.f32({4, 7}), stored = t.f32({4, 8}), scale = t.f32({1, 1});
  const Tensor quantised = t.empty(DType::f8e4m3, {4, 8}), wrongScale = t.f32({2, 1});
  const auto run = [&](const Tensor& w, const Tensor* s) { t.run(Isa::plain, "linear", args({&x, nullptr, &w, s, nullptr, &out, &rows, nullptr})); };
  t.expectThrows("a weight of another width", "INTERNAL", "linear: weight", [&] { run(narrow, nullptr); });
  t.expectThrows("FP8 without scales", "INTERNAL", "needs its block scales", [&] { run(quantised, nullptr); });
  t.expectThrows("scales without FP8", "INTERNAL", "takes no block scales", [&] { run(stored, &scale); });
  t.expectThrows("scales of another shape", "INTERNAL", "must be float32 [1, 1]", [&] { run(quantised, &wrongScale); });
}

// ---- the products behind the operation (cpu/gemm.h) --------------------------------------------------------------------

#define DECLARE_TRANSPOSED(isa)                                                                                                  \
  namespace longcat::isa {                                                                                                       \
  void gemmTransposed(const float* a, int64_t aStride, int64_t rows, const WeightView& w, int64_t rowBegin, int64_t rowEnd,     \
                      float* out, int64_t outStride);                                                                            \
  }
DECLARE_TRANSPOSED(plain)
#ifndef LONGCAT_ONLY_PLAIN
DECLARE_TRANSPOSED(avx2)
DECLARE_TRANSPOSED(avx512)
#endif

namespace {

decltype(&plain::gemmTransposed) transposedOf(Isa isa) {
#ifndef LONGCAT_ONLY_PLAIN
  if (isa == Isa::avx512) return avx512::gemmTransposed;
  if (isa == Isa::avx2) return avx2::gemmTransposed;
#endif
  return isa == Isa::plain ? plain::gemmTransposed : nullptr;
}

}  // namespace

// Sums of up to 200 terms of size 1/√columns, relative to the sum of their sizes.
LONGCAT_TEST(linear) {
  struct Size { int64_t height, columns, begin, end; };
  for (const auto [height, columns, begin, end] : {Size{1, 1, 0, 1}, Size{24, 24, 8, 16}, Size{48, 130, 3, 40}, Size{256, 512, 100, 256}, Size{200, 16, 0, 200}}) {
    for (DType dtype : kWeightDtypes) {
      const Weight w = randomWeight(t, dtype, height, columns);
      const WeightView view = weightView(w.data, w.scales(), "w");
      const int64_t R = 9, depth = end - begin;
      const std::vector<float> a = t.randomFloats(R * (depth + 1));
      std::vector<float> want;
      for (int64_t r = 0; r < R; ++r) {
        for (int64_t j = 0; j < columns; ++j) {
          double sum = 0;
          for (int64_t i = begin; i < end; ++i) sum += static_cast<double>(a[r * (depth + 1) + i - begin]) * w.values[i * columns + j];
          want.push_back(static_cast<float>(sum));
        }
      }
      for (Isa isa : t.isas()) {
        if (isGpu(isa)) continue;  // theirs is inside the attention operations
        std::vector<float> got(R * columns), one(R * columns);
        transposedOf(isa)(a.data(), depth + 1, R, view, begin, end, got.data(), columns);
        t.expectClose("transposed " + describe(dtype, R, height, columns), got, want, 5e-6);
        for (int64_t r = 0; r < R; ++r) transposedOf(isa)(a.data() + r * (depth + 1), 0, 1, view, begin, end, one.data() + r * columns, columns);
        t.expectSameBits("transposed: bits of a row alone", one, got);
      }
    }
  }
}

// Sizes at the edges of a GPU's tiles (8, 16, 32, 64, 96, 128 rows; 16, 64, 128 outputs; lanes of k from 256, 1024 and 4096 on, and one
// too long to be kept for many rows), every capacity a tile of its own: right, and the same bits as the widest gives.
LONGCAT_TEST(linear) {
  const int64_t most = 150;
  struct Size { int64_t outputs, inputs; };
  for (const auto [outputs, inputs] : {Size{17, 128}, Size{144, 256}, Size{75, 416}, Size{33, 1152}, Size{40, 4352}, Size{24, 12288}}) {
    for (DType dtype : kWeightDtypes) {
      const Weight w = randomWeight(t, dtype, outputs, inputs), bias = randomWeight(t, DType::bf16, 1, outputs);
      const Tensor x = t.randomF32({most, inputs}), all = t.i32({1}, {static_cast<int32_t>(most)});
      const std::vector<float> want = wantedOf(w, t.floats(x), most, inputs, &bias.values);
      std::vector<int32_t> same(static_cast<size_t>(most));
      for (size_t r = 0; r < same.size(); ++r) same[r] = static_cast<int32_t>(r);
      for (Isa isa : t.isas()) {
        const Tensor widest = t.f32({most, outputs}), scratch = t.f32({most, inputs});
        t.run(isa, "linear", args({&x, nullptr, &w.data, w.scales(), &bias.data, &widest, &all, &scratch}));
        t.expectClose(describe(dtype, most, outputs, inputs), t.floats(widest), want, 2e-6);
        for (int64_t R : t.fewOrAll<int64_t>({1, 16, 17, 33, 65, 97}, {1, 8, 9, 16, 17, 32, 33, 64, 65, 96, 97, 128})) {
          const Tensor index = t.i32({R}, {same.begin(), same.begin() + R}), live = t.i32({1}, {static_cast<int32_t>(R)}), out = t.f32({R, outputs}), scratch = t.f32({R, inputs});
          t.run(isa, "linear", args({&x, &index, &w.data, w.scales(), &bias.data, &out, &live, &scratch}));
          t.expectSameBits(describe(dtype, R, outputs, inputs) + ": as with room for more", out.data, widest.data,
                           static_cast<size_t>(R * outputs) * sizeof(float));
        }
      }
    }
  }
}
