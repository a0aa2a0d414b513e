// mla_decode against float64, and what its bits may not depend on: neighbours, blocks, threads.
#include "ops/mla_prefill/attention_case.h"

using namespace longcat;
using namespace longcat::attention;

namespace {

std::vector<float> runDecode(TestContext& t, Isa isa, const Case& c, const std::vector<Chunk>& rows, int salt = 1, int threads = 2, int64_t spare = 3) {
  Step step(t, c, rows, 0, salt, 1, spare);
  t.run(isa, "mla_decode", step.decode(c), threads);
  std::vector<float> out = t.floats(step.out);
  if (spare > 0) t.expect(std::isnan(out[step.rows * c.sizes.heads * c.sizes.v]), "rows beyond the live ones are not written");
  out.resize(step.rows * c.sizes.heads * c.sizes.v);
  return out;
}

void checkCase(TestContext& t, Sizes sizes, DType dtype, std::vector<int64_t> lengths, std::vector<int64_t> others, bool packed = false) {
  const Case c(t, sizes, dtype, lengths, packed);
  const int64_t width = sizes.heads * sizes.v;
  const std::string label = sizes.name() + " " + nameOf(dtype) + (packed ? " packed" : "");
  std::vector<Chunk> last;
  std::vector<float> want;
  for (size_t s = 0; s < lengths.size(); ++s) {
    last.push_back({static_cast<int>(s), lengths[s] - 1, lengths[s]});
    const std::vector<float> rows = Case::rowsOf(c.expected[s], lengths[s] - 1, lengths[s], width);
    want.insert(want.end(), rows.begin(), rows.end());
  }
  for (Isa isa : t.isas()) {
    const std::vector<float> got = runDecode(t, isa, c, last);
    t.expectCloseRows(label, got, want, width, 3e-5);
    if (packed) {
      Case plain = c;
      plain.packed = false;
      const std::vector<float> ofPlain = runDecode(t, isa, plain, last);
      const bool mayHaveAnotherKernel = isa == Isa::cudaBf16 && sizes.rank == 512 && sizes.heads <= 32;
      if (mayHaveAnotherKernel) t.expectCloseRows(label + ": a plain cache of the same numbers", ofPlain, got, width, 3e-5);
      else t.expectSameBits(label + ": a plain cache of the same numbers", ofPlain, got);
    }
    if (!t.brief())
      for (int threads : {1, 3, 7}) t.expectSameBits(label + ": threads", runDecode(t, isa, c, last, 1, threads), got);
    t.expectSameBits(label + ": other blocks and slots", runDecode(t, isa, c, last, 2), got);
    for (size_t s = 0; s < (t.brief() ? 1 : lengths.size()); ++s)
      t.expectSameInAnyBatch(label + ": alone", runDecode(t, isa, c, {last[s]}), {got.begin() + s * width, got.begin() + (s + 1) * width});
    t.expectSameInAnyBatch(label + ": alone, without room for more", runDecode(t, isa, c, {last[0]}, 1, 2, 0), {got.begin(), got.begin() + width});
    if (lengths.size() > 1)
      t.expectSameInAnyBatch(label + ": two, without room for more", runDecode(t, isa, c, {last[0], last[1]}, 1, 2, 0), {got.begin(), got.begin() + 2 * width});
    for (int64_t position : others)
      t.expectCloseRows(label + " at " + std::to_string(position), runDecode(t, isa, c, {{0, position, position + 1}}),
                        Case::rowsOf(c.expected[0], position, position + 1, width), width, 3e-5);
  }
}

/// A mixed step: prompt rows before the decode rows are left alone, and what mla_prefill wrote there survives, though outputs are poisoned before each
/// operation. Several tokens of one sequence may be decoded at once.
void checkMixedStep(TestContext& t, Sizes sizes, DType dtype, bool packed) {
  const Case c(t, sizes, dtype, {30, 140}, packed);
  const std::vector<Chunk> chunks = {{0, 0, 30}, {1, 137, 140}};
  const int64_t width = sizes.heads * sizes.v;
  const std::string label = sizes.name() + (packed ? " packed" : "") + ": ";
  const std::vector<float> decoded = Case::rowsOf(c.expected[1], 137, 140, width);
  for (Isa isa : t.isas()) {
    Step step(t, c, chunks, 1, 1);
    t.run(isa, "mla_decode", step.decode(c));
    const std::vector<float> alone = t.floats(step.out);
    t.expect(std::isnan(alone[30 * width - 1]), label + "a prompt row is not written");
    t.expectCloseRows(label + "decode rows", Case::rowsOf(alone, 30, 33, width), decoded, width, 3e-5);
    t.expectSameInAnyBatch(label + "a decode row without the prompt", runDecode(t, isa, c, {chunks[1]}), Case::rowsOf(alone, 30, 33, width));
    for (const bool promptFirst : {true, false}) {
      Step both(t, c, chunks, 1, 1);
      if (promptFirst) t.run(isa, "mla_prefill", both.prefill(c));
      t.run(isa, "mla_decode", both.decode(c));
      if (!promptFirst) t.run(isa, "mla_prefill", both.prefill(c));
      const std::vector<float> mixed = t.floats(both.out);
      t.expectCloseRows(label + "prompt rows of a mixed step", Case::rowsOf(mixed, 0, 30, width), c.expected[0], width, 3e-5);
      t.expectSameBits(label + "decode rows of a mixed step", Case::rowsOf(mixed, 30, 33, width), Case::rowsOf(alone, 30, 33, width));
      t.expect(std::isnan(mixed[33 * width]), label + "rows beyond the live ones are not written");
    }
  }
}

/// Rows of one sequence together, and some of them alone.
using Rows = std::pair<int64_t, int64_t>;
void checkManyRows(TestContext& t, Sizes sizes, bool packed, int64_t length, std::initializer_list<Rows> ranges) {
  const Case c(t, sizes, DType::bf16, {length}, packed);
  const int64_t width = sizes.heads * sizes.v;
  for (Isa isa : t.isas()) {
    for (const auto& [from, to] : t.fewOrAll({*ranges.begin()}, ranges)) {
      const std::vector<float> got = runDecode(t, isa, c, {{0, from, to}});
      t.expectCloseRows("rows from " + std::to_string(from) + " on", got, Case::rowsOf(c.expected[0], from, to, width), width, 3e-5);
      for (int64_t row : t.fewOrAll({to - 1}, {from, from + 1, (from + to) / 2, to - 2, to - 1}))
        t.expectSameInAnyBatch("row " + std::to_string(row), runDecode(t, isa, c, {{0, row, row + 1}}), Case::rowsOf(got, row - from, row - from + 1, width));
    }
  }
}

}  // namespace

LONGCAT_TEST(mla_decode) {
  for (DType dtype : {DType::f32, DType::bf16, DType::f8e4m3}) {
    checkCase(t, {2, 16, 16, 32, 24, 16}, dtype, {600, 1, 3, 256, 257}, {0, 1, 4, 255, 256, 511, 512});
    checkCase(t, {7, 13, 6, 19, 21, 5}, dtype, {300, 5}, {0, 256});
  }
}

LONGCAT_TEST(mla_decode) {
  checkCase(t, {4, 128, 64, 128, 512, 32}, DType::bf16, {100, 30}, {0, 17});
  checkCase(t, {2, 128, 64, 128, 512, 64}, DType::f8e4m3, {40}, {});
  checkCase(t, {19, 8, 8, 8, 16, 16}, DType::f32, {90, 2}, {63});
}

LONGCAT_TEST(mla_decode) {
  // The sizes that Hopper has a kernel for: latents of 512, rope keys of 64; any heads, pages that are parts of a tile of 64 keys or several.
  checkCase(t, {3, 32, 64, 16, 512, 64}, DType::bf16, {1300, 64, 1}, {0, 63, 64, 127, 128, 300, 513});
  checkCase(t, {70, 16, 64, 8, 512, 16}, DType::bf16, {70, 3}, {15, 63});
  checkCase(t, {2, 16, 64, 8, 512, 8}, DType::bf16, {290, 130}, {255, 256});
  checkCase(t, {5, 16, 64, 8, 512, 128}, DType::f8e4m3, {200, 129}, {});
}

LONGCAT_TEST(mla_decode) {
  // A packed cache: of sizes that fill no vector, of several scales a row, of heads for all kernels.
  for (DType dtype : {DType::f32, DType::bf16, DType::f8e4m3}) {
    checkCase(t, {2, 16, 16, 32, 24, 16}, dtype, {600, 1, 3, 256, 257}, {0, 255, 512}, true);
    checkCase(t, {7, 13, 6, 19, 21, 5}, dtype, {300, 5}, {0, 256}, true);
  }
  checkCase(t, {3, 13, 6, 19, 141, 5}, DType::f32, {30, 5}, {7}, true);
  checkCase(t, {4, 128, 64, 128, 512, 32}, DType::bf16, {100, 30}, {0, 17}, true);
  checkCase(t, {20, 16, 24, 8, 200, 16}, DType::bf16, {70, 33}, {}, true);
  checkCase(t, {3, 32, 64, 16, 512, 64}, DType::bf16, {1300, 64, 1}, {0, 63, 64, 127, 128, 300, 513}, true);
  checkCase(t, {70, 16, 64, 8, 512, 16}, DType::bf16, {70, 3}, {15, 63}, true);
  checkCase(t, {2, 16, 64, 8, 512, 8}, DType::bf16, {290, 130}, {255, 256}, true);
  checkCase(t, {5, 16, 64, 8, 512, 128}, DType::f8e4m3, {200, 129}, {}, true);
}

LONGCAT_TEST(mla_decode) {
  // More work than one share for each multiprocessor, and of lengths that shares do not divide: rows are attended whole, in parts from their beginning,
  // from the middle and to the end. Many rows of one sequence are decoded, as drafted tokens are.
  for (bool packed : {false, true}) checkManyRows(t, {1, 16, 64, 8, 512, 64}, packed, 4200, {{4140, 4200}, {2100, 2300}, {0, 300}});
  // Heads for one block of Hopper's where rows are many, for two where they are few.
  checkManyRows(t, {20, 16, 64, 8, 512, 64}, false, 530, {{230, 530}, {510, 530}});
}

LONGCAT_TEST(mla_decode) {
  // LongCat's own sizes, and more rows than are few: products with kv_b by another kernel, whose bits are those of a row alone.
  for (DType dtype : {DType::bf16, DType::f8e4m3}) {
    checkCase(t, {2, 128, 64, 128, 512, 64}, dtype, {70, 3, 64, 1, 9, 65, 17, 2, 33, 4, 5, 40, 6, 7, 8, 10, 11, 12, 13, 14, 15, 16, 18, 19}, {});
  }
}

LONGCAT_TEST(mla_decode) {
  // Heads enough for that kernel at few rows. Averages over fewer keys would be off by more than the tolerance: two keys' weights differ by their rounding.
  for (DType dtype : {DType::bf16, DType::f8e4m3}) checkCase(t, {26, 128, 64, 128, 512, 64}, dtype, {70, 65}, {64});
}

LONGCAT_TEST(mla_decode) {
  // More rows than one task merges: the same bits as each alone.
  const Sizes sizes{2, 16, 16, 32, 24, 16};
  std::vector<int64_t> lengths;
  std::vector<Chunk> last;
  for (int s = 0; s < 37; ++s) lengths.push_back(1 + t.randomInteger(300)), last.push_back({s, lengths[s] - 1, lengths[s]});
  const Case c(t, sizes, DType::bf16, lengths);
  for (Isa isa : t.isas()) {
    const std::vector<float> all = runDecode(t, isa, c, last);
    for (int s : {0, 15, 16, 36}) t.expectSameInAnyBatch("batch of 37", runDecode(t, isa, c, {last[s]}), Case::rowsOf(all, s, s + 1, 64));
  }
}

LONGCAT_TEST(mla_decode) {
  // What the tolerance of rows is there for: a lost key changes no number by kBf16Tolerance, and the row by more than rowTolerance().
  const Sizes sizes{7, 16, 16, 32, 24, 16};
  const int64_t length = 300, width = sizes.heads * sizes.v, queries = sizes.heads * sizes.queryWidth();
  const Case c(t, sizes, DType::bf16, {length});
  const std::vector<float> want = Case::rowsOf(c.expected[0], length - 1, length, width);
  for (int64_t lost : {int64_t{0}, length / 2, length - 1}) {
    Case less = c;
    less.latent[0].erase(less.latent[0].begin() + lost * sizes.latentWidth(), less.latent[0].begin() + (lost + 1) * sizes.latentWidth());
    less.query[0].erase(less.query[0].begin(), less.query[0].begin() + queries);
    const std::vector<float> got = runDecode(t, Isa::plain, less, {{0, length - 2, length - 1}});
    double most = 0;
    for (int64_t i = 0; i < width; ++i) most = std::max(most, std::abs(double{got[i]} - want[i]));
    t.expect(most < kBf16Tolerance, "a lost key changes each number by little");
    t.expect(rowDistance(got.data(), want.data(), width) > rowTolerance(width), "a lost key is seen in its row");
  }
}

LONGCAT_TEST(mla_decode) {
  // A mixed step: of sizes that fill no vector, of the smallest that do, of those that Hopper has kernels for.
  for (bool packed : {false, true}) {
    checkMixedStep(t, {2, 13, 6, 19, 21, 5}, DType::bf16, packed);
    checkMixedStep(t, {2, 16, 16, 32, 24, 16}, DType::f32, packed);
    checkMixedStep(t, {2, 128, 64, 128, 512, 64}, DType::bf16, packed);
  }
}

LONGCAT_TEST(mla_decode) {
  const Case c(t, {2, 16, 16, 32, 24, 16}, DType::f32, {30, 40});
  const Step step(t, c, {{0, 0, 30}, {1, 37, 40}}, 1, 1);
  OpArgs arguments = step.decode(c);
  Tensor endless = step.cache;
  endless.shape[0] = INT32_MAX;
  arguments.tensor[1] = &endless;
  t.expectThrows("more cache rows than int32", "INTERNAL", "mla_decode: cache has more rows", [&] { t.run(Isa::plain, "mla_decode", arguments); });
  arguments = step.decode(c);
  arguments.tensor[10] = &step.out;
  t.expectThrows("scratch of another shape", "INTERNAL", "mla_decode: partial must be", [&] { t.run(Isa::plain, "mla_decode", arguments); });
}
