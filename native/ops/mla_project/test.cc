// mla_project against float64: queries and cache rows, at odd and real sizes, for every stored dtype.
#include <algorithm>
#include <cmath>
#include <string>

#include "ops/harness.h"
#include "ops/latent_cache_test.h"

using namespace longcat;

namespace {

struct Sizes {
  int64_t rows, hidden, qRank, kvRank, heads, nope, rope, blockSize;
};

struct Weight {
  Fp8Weight stored;
  bool fp8 = false;
  std::vector<float> values;
  const Tensor* scale() const { return fp8 ? &stored.scale : nullptr; }
};

Weight randomWeight(TestContext& t, int64_t rows, int64_t columns, DType dtype) {
  Weight w;
  const float size = 1.5f / std::sqrt(static_cast<float>(columns));
  w.fp8 = dtype == DType::f8e4m3;
  if (w.fp8) w.stored = t.randomFp8(rows, columns, -size, size);
  else w.stored.data = dtype == DType::bf16 ? t.randomBf16({rows, columns}, -size, size) : t.randomF32({rows, columns}, -size, size);
  w.values = t.floats(w.stored.data, w.scale());
  return w;
}

/// y = W x + bias in float64.
std::vector<double> apply(const Weight& w, const std::vector<double>& x, const std::vector<float>& bias) {
  std::vector<double> y(w.values.size() / x.size());
  for (size_t o = 0; o < y.size(); ++o) {
    for (size_t k = 0; k < x.size(); ++k) y[o] += double{w.values[o * x.size() + k]} * x[k];
    if (!bias.empty()) y[o] += bias[o];
  }
  return y;
}

void normalise(double* x, const std::vector<float>& weight, double scale) {
  double squares = 0;
  for (size_t k = 0; k < weight.size(); ++k) squares += x[k] * x[k];
  const double factor = 1 / std::sqrt(squares / static_cast<double>(weight.size()) + 1e-6);
  for (size_t k = 0; k < weight.size(); ++k) x[k] *= factor * weight[k] * scale;
}

void rotate(double* x, const float* cosSin, int64_t rope) {
  const std::vector<double> pairs(x, x + rope);
  for (int64_t j = 0; j < rope / 2; ++j) {
    const double c = cosSin[j], s = cosSin[rope / 2 + j];
    x[j] = pairs[2 * j] * c - pairs[2 * j + 1] * s;
    x[j + rope / 2] = pairs[2 * j + 1] * c + pairs[2 * j] * s;
  }
}

/// The arguments of one call, and what should come out.
struct Project {
  Sizes s;
  Weight qA, qB, kvA;
  Tensor qANorm, kvANorm, qABias, kvABias, x, cosSin, positions, rowSlot, blockTables, qLatent, kvLatent, latentLanes, q, cache, rows;
  bool biased;
  int64_t blocks = 0, maxBlocks = 6;
  std::vector<float> wantQ, wantCache;
  static constexpr int64_t kLaneRows = 256;  // as a model has them
  static constexpr double kQScale = 1.25, kKvScale = 0.7;

  Project(TestContext& t, Sizes sizes, DType dtype, bool bias) : s(sizes), biased(bias) {
    const int64_t head = s.nope + s.rope, width = s.kvRank + s.rope, capacity = s.rows + 2;
    qA = randomWeight(t, s.qRank, s.hidden, dtype);
    qB = randomWeight(t, s.heads * head, s.qRank, dtype);
    kvA = randomWeight(t, width, s.hidden, dtype);
    const bool narrow = dtype != DType::f32;
    qANorm = narrow ? t.randomBf16({1, s.qRank}, .5, 1.5) : t.randomF32({1, s.qRank}, .5, 1.5);
    kvANorm = narrow ? t.randomBf16({1, s.kvRank}, .5, 1.5) : t.randomF32({1, s.kvRank}, .5, 1.5);
    qABias = narrow ? t.randomBf16({1, s.qRank}) : t.randomF32({1, s.qRank});
    kvABias = t.randomF32({1, width});
    x = t.randomF32({capacity, s.hidden}, -2, 2);
    for (int64_t i = s.rows * s.hidden; i < capacity * s.hidden; ++i) reinterpret_cast<float*>(x.data)[i] = NAN;
    cosSin = t.randomF32({capacity, s.rope});
    std::vector<int32_t> position(capacity, -1), slot(capacity, -1), table;
    blocks = 3 * maxBlocks;
    for (int64_t b = 0; b < blocks; ++b) table.push_back(static_cast<int32_t>(b * 5 % blocks));
    for (int64_t r = 0; r < s.rows; ++r) position[r] = static_cast<int32_t>((r / 2 + 3) % (maxBlocks * s.blockSize)), slot[r] = r % 2 ? 2 : 0;
    positions = t.i32({capacity}, position);
    rowSlot = t.i32({capacity}, slot);
    blockTables = t.i32({3, maxBlocks}, table);
    qLatent = t.f32({capacity, s.qRank});
    kvLatent = t.f32({capacity, width});
    latentLanes = t.f32({8, std::min(capacity, kLaneRows), s.qRank + width});
    q = t.f32({capacity, s.heads, head});
    rows = t.i32({1}, {static_cast<int32_t>(s.rows)});
    clearCache(t);
    expectation(t, position, slot, table);
  }

  void clearCache(TestContext& t) { cache = t.f32({blocks, s.blockSize, s.kvRank + s.rope}, std::vector<float>(blocks * s.blockSize * (s.kvRank + s.rope), 7)); }

  void expectation(TestContext& t, const std::vector<int32_t>& position, const std::vector<int32_t>& slot, const std::vector<int32_t>& table) {
    const int64_t width = s.kvRank + s.rope, head = s.nope + s.rope;
    const std::vector<float> input = t.floats(x), angles = t.floats(cosSin);
    wantCache.assign(blocks * s.blockSize * width, 7);
    for (int64_t r = 0; r < s.rows; ++r) {
      const std::vector<double> n(input.begin() + r * s.hidden, input.begin() + (r + 1) * s.hidden);
      std::vector<double> latent = apply(qA, n, biased ? t.floats(qABias) : std::vector<float>());
      normalise(latent.data(), t.floats(qANorm), 1);
      std::vector<double> query = apply(qB, latent, {});
      for (double& v : query) v *= kQScale;
      for (int64_t h = 0; h < s.heads; ++h) rotate(query.data() + h * head + s.nope, angles.data() + r * s.rope, s.rope);
      wantQ.insert(wantQ.end(), query.begin(), query.end());
      std::vector<double> row = apply(kvA, n, biased ? t.floats(kvABias) : std::vector<float>());
      normalise(row.data(), t.floats(kvANorm), kKvScale);
      rotate(row.data() + s.kvRank, angles.data() + r * s.rope, s.rope);
      const int64_t block = table[slot[r] * maxBlocks + position[r] / s.blockSize];
      std::copy(row.begin(), row.end(), wantCache.begin() + (block * s.blockSize + position[r] % s.blockSize) * width);
    }
  }

  OpArgs arguments() const {
    return args({&x, &qA.stored.data, qA.scale(), biased ? &qABias : nullptr, &qANorm, &qB.stored.data, qB.scale(), &kvA.stored.data, kvA.scale(),
                 biased ? &kvABias : nullptr, &kvANorm, &cosSin, &positions, &rowSlot, &blockTables, &qLatent, &kvLatent, &latentLanes, &q, &cache, &rows},
                {double(s.heads), double(s.nope), double(s.rope), 1e-6, kQScale, kKvScale});
  }
};

void checkCase(TestContext& t, Sizes sizes, DType dtype, bool bias) {
  Project p(t, sizes, dtype, bias);
  const std::string label = std::string(nameOf(dtype)) + " hidden " + std::to_string(sizes.hidden) + " rows " + std::to_string(sizes.rows);
  const int64_t queryWidth = sizes.heads * (sizes.nope + sizes.rope), width = sizes.kvRank + sizes.rope;
  for (Isa isa : t.isas()) {
    std::vector<float> firstQ, firstCache;
    for (int threads : {1, 2, 3}) {
      p.clearCache(t);
      t.run(isa, "mla_project", p.arguments(), threads);
      std::vector<float> q = t.floats(p.q);
      const std::vector<float> cache = t.floats(p.cache);
      t.expect(std::isnan(q[sizes.rows * queryWidth]), "rows beyond the live ones are not written");
      q.resize(sizes.rows * queryWidth);
      t.expectClose(label + ": q", q, p.wantQ, 5e-6);
      t.expectClose(label + ": cache, other rows untouched", cache, p.wantCache, 5e-6);
      if (firstQ.empty()) firstQ = q, firstCache = cache;
      t.expectSameBits(label + ": threads", q, firstQ);
      t.expectSameBits(label + ": threads", cache, firstCache);
    }
    // The last row alone: a call with one live row.
    Project one = p;
    one.rows = t.i32({1}, {1});
    const auto last = [&](const Tensor& tensor, int64_t n) {
      const std::vector<float> values = t.floats(tensor);
      return t.f32({1, n}, {values.begin() + (sizes.rows - 1) * n, values.begin() + sizes.rows * n});
    };
    one.x = last(p.x, sizes.hidden);
    one.cosSin = last(p.cosSin, sizes.rope);
    one.positions = t.i32({1}, {t.integers(p.positions)[sizes.rows - 1]});
    one.rowSlot = t.i32({1}, {t.integers(p.rowSlot)[sizes.rows - 1]});
    one.qLatent = t.f32({1, sizes.qRank}), one.kvLatent = t.f32({1, width}), one.q = t.f32({1, sizes.heads, sizes.nope + sizes.rope});
    one.clearCache(t);
    t.run(isa, "mla_project", one.arguments());
    t.expectSameBits(label + ": alone", t.floats(one.q), {firstQ.end() - queryWidth, firstQ.end()});
  }
}

/// The first `live` rows alone, in tensors with room for `capacity`: the bits of a run of all rows.
void checkRowCounts(TestContext& t, Sizes sizes, DType dtype, std::initializer_list<int64_t> counts) {
  Project all(t, sizes, dtype, true);
  const std::string label = std::string(nameOf(dtype)) + " hidden " + std::to_string(sizes.hidden) + ": ";
  const int64_t head = sizes.nope + sizes.rope, width = sizes.kvRank + sizes.rope;
  for (Isa isa : t.isas()) {
    all.clearCache(t);
    t.run(isa, "mla_project", all.arguments());
    const std::vector<float> q = t.floats(all.q), cache = t.floats(all.cache);
    for (int64_t live : counts) {
      for (int64_t capacity : {live, sizes.rows}) {
        Project some = all;
        const auto first = [&](const Tensor& tensor, int64_t n) {
          const std::vector<float> values = t.floats(tensor);
          return t.f32({capacity, n}, {values.begin(), values.begin() + capacity * n});
        };
        const auto firstIntegers = [&](const Tensor& tensor) {
          const std::vector<int32_t> values = t.integers(tensor);
          return t.i32({capacity}, {values.begin(), values.begin() + capacity});
        };
        some.x = first(all.x, sizes.hidden), some.cosSin = first(all.cosSin, sizes.rope);
        some.positions = firstIntegers(all.positions), some.rowSlot = firstIntegers(all.rowSlot);
        some.qLatent = t.f32({capacity, sizes.qRank}), some.kvLatent = t.f32({capacity, width});
        some.latentLanes = t.f32({8, std::min(capacity, Project::kLaneRows), sizes.qRank + width});
        some.q = t.f32({capacity, sizes.heads, head});
        some.rows = t.i32({1}, {static_cast<int32_t>(live)});
        some.clearCache(t);
        t.run(isa, "mla_project", some.arguments());
        const std::string of = label + std::to_string(live) + " rows of " + std::to_string(capacity);
        std::vector<float> got = t.floats(some.q);
        got.resize(live * sizes.heads * head);
        t.expectSameBits(of + ": q", got, {q.begin(), q.begin() + live * sizes.heads * head});
        std::vector<float> kept = t.floats(some.cache);
        for (size_t i = 0; i < kept.size(); ++i) {
          if (kept[i] == 7) kept[i] = cache[i];  // a row that only all rows have written
        }
        t.expectSameBits(of + ": cache", kept, cache);
      }
    }
  }
}

}  // namespace

LONGCAT_TEST(mla_project) {
  for (DType dtype : {DType::f32, DType::bf16, DType::f8e4m3}) {
    for (bool bias : {false, true}) {
      checkCase(t, {5, 40, 12, 24, 2, 16, 16, 16}, dtype, bias);
      checkCase(t, {1, 33, 7, 21, 3, 13, 6, 5}, dtype, bias);
    }
  }
  checkCase(t, {130, 48, 24, 40, 2, 8, 4, 32}, DType::bf16, false);
}

LONGCAT_TEST(mla_project) {
  checkCase(t, {2, 256, 64, 512, 4, 128, 64, 32}, DType::bf16, false);
  checkCase(t, {7, 256, 192, 512, 2, 128, 64, 64}, DType::f8e4m3, false);
}

LONGCAT_TEST(mla_project) {
  for (DType dtype : {DType::bf16, DType::f8e4m3}) {
    checkRowCounts(t, {150, 1024, 144, 72, 2, 16, 8, 16}, dtype, {1, 8, 9, 17, 33, 64, 65, 97, 129, 150});
    checkRowCounts(t, {70, 4608, 64, 24, 1, 16, 8, 16}, dtype, {1, 15, 31, 63, 70});  // more steps of k than stages
    checkRowCounts(t, {100, 256, 1536, 72, 5, 20, 12, 16}, dtype, {1, 3, 9, 18, 40, 64, 65, 100});  // four lanes of the query's product
    checkRowCounts(t, {70, 256, 4608, 24, 3, 128, 64, 16}, dtype, {1, 14, 31, 63});                 // eight
    checkRowCounts(t, {300, 1024, 256, 72, 2, 16, 8, 32}, dtype, {1, 200, 257, 300});               // more rows than the lanes' scratch has
  }
}

namespace {

/// A packed cache beside a plain one of the same call: every latent at a code next to its number, by the scale of the row's largest one; rope keys
/// rounded; rows of no token untouched. The query does not notice.
void checkPacked(TestContext& t, Sizes sizes, DType dtype) {
  Project p(t, sizes, dtype, true);
  const PackedLatents layout{sizes.kvRank, sizes.rope, sizes.blockSize};
  const int64_t width = sizes.kvRank + sizes.rope;
  const std::string label = std::string(nameOf(dtype)) + " kvRank " + std::to_string(sizes.kvRank) + " packed: ";
  for (Isa isa : t.isas()) {
    p.clearCache(t);
    t.run(isa, "mla_project", p.arguments());
    const std::vector<float> q = t.floats(p.q), plain = t.floats(p.cache);
    const auto packed = [&](int64_t live, int threads) {
      Project some = p;
      some.rows = t.i32({1}, {static_cast<int32_t>(live)});
      some.cache = packedCache(t, std::vector<float>(plain.size(), NAN), p.blocks, layout);
      t.run(isa, "mla_project", some.arguments(), threads);
      return some.cache;
    };
    const Tensor cache = packed(sizes.rows, 2);
    t.expectSameBits(label + "q", t.floats(p.q), q);
    t.expectSameBits(label + "threads", cache.data, packed(sizes.rows, 3).data, static_cast<size_t>(cache.elements()));
    const std::vector<float> got = unpackedCache(cache, layout);
    for (int64_t row = 0; row < p.blocks * sizes.blockSize; ++row) {
      const float *want = plain.data() + row * width, *is = got.data() + row * width;
      const bool written = want[0] != 7;
      const auto* scales = reinterpret_cast<const float*>(layout.at(reinterpret_cast<const uint8_t*>(cache.data), row).scales);
      for (int64_t k = 0; k < width; ++k) {
        if (!written) {
          t.expect(std::isnan(is[k]), label + "a row of no token is not written");
          continue;
        }
        // A plain cache's number on a GPU may have been rounded to bfloat16; what a code is off by is half a step of three bits, or of the smallest ones.
        const float off = std::abs(is[k] - want[k]), bf16 = std::abs(want[k]) / 128;
        const float step = k < sizes.kvRank ? std::max(std::abs(want[k]) / 16, scales[k / kFp8Block] / 1024) : 0;
        t.expect(off <= 1.01f * step + bf16 + 1e-6f, label + "a number of the cache");
      }
      for (int64_t first = 0; written && first < sizes.kvRank; first += kFp8Block) {
        float largest = 0;
        for (int64_t k = first; k < std::min(first + kFp8Block, sizes.kvRank); ++k) largest = std::max(largest, std::abs(want[k]));
        const float scale = scales[first / kFp8Block];
        t.expect(scale == latentScale(largest * 0.99f) || scale == latentScale(largest * 1.01f), label + "a scale");
      }
    }
    if (sizes.rows == 1) continue;
    const Tensor one = packed(1, 1);  // the first row alone
    const std::vector<float> ofOne = unpackedCache(one, layout);
    for (size_t i = 0; i < ofOne.size(); ++i)
      if (!std::isnan(ofOne[i])) t.expect(ofOne[i] == got[i], label + "alone");
  }
}

}  // namespace

LONGCAT_TEST(mla_project) {
  for (DType dtype : {DType::f32, DType::bf16, DType::f8e4m3}) {
    checkPacked(t, {5, 40, 12, 24, 2, 16, 16, 16}, dtype);
    checkPacked(t, {3, 33, 7, 21, 3, 13, 6, 5}, dtype);
    checkPacked(t, {6, 64, 24, 300, 1, 8, 12, 8}, dtype);
  }
  checkPacked(t, {9, 256, 64, 512, 2, 128, 64, 16}, DType::bf16);
  checkPacked(t, {2, 64, 24, 2200, 1, 8, 8, 16}, DType::bf16);  // more than a block's threads have at once
}

LONGCAT_TEST(mla_project) {
  Project p(t, {2, 40, 12, 24, 2, 16, 16, 16}, DType::f32, false);
  OpArgs arguments = p.arguments();
  arguments.scalar[0] = 3;
  t.expectThrows("another number of heads", "INTERNAL", "mla_project: q_b must be", [&] { t.run(Isa::plain, "mla_project", arguments); });
  arguments = p.arguments();
  arguments.tensor[19] = nullptr;
  t.expectThrows("no cache", "INTERNAL", "cache", [&] { t.run(Isa::plain, "mla_project", arguments); });
  p.rows = t.i32({1}, {0});
  t.run(Isa::plain, "mla_project", p.arguments());
  t.expectSameBits("no rows: nothing written", t.floats(p.cache), std::vector<float>(p.cache.elements(), 7));
}
