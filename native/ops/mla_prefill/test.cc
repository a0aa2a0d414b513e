// mla_prefill against float64, and what its bits may not depend on: chunks, neighbours, blocks, threads.
#include "ops/mla_prefill/attention_case.h"

using namespace longcat;
using namespace longcat::attention;

namespace {

/// What no bit may depend on.
struct How {
  int salt = 1, threads = 2;
  int64_t roundTiles = 1;
};

/// Output rows of the step, chunk after chunk.
std::vector<float> runPrefill(TestContext& t, Isa isa, const Case& c, const std::vector<Chunk>& chunks, const How& how = {}) {
  Step step(t, c, chunks, static_cast<int>(chunks.size()), how.salt, how.roundTiles);
  t.run(isa, "mla_prefill", step.prefill(c), how.threads);
  std::vector<float> out = t.floats(step.out);
  t.expect(std::isnan(out[step.rows * c.sizes.heads * c.sizes.v]), "rows beyond the live ones are not written");
  out.resize(step.rows * c.sizes.heads * c.sizes.v);
  return out;
}

void append(std::vector<float>& to, const std::vector<float>& values) { to.insert(to.end(), values.begin(), values.end()); }

void checkCase(TestContext& t, Sizes sizes, DType dtype, std::vector<int64_t> lengths, std::vector<int64_t> pieces = {1, 7, 64}, bool packed = false) {
  const Case c(t, sizes, dtype, lengths, packed);
  const int64_t width = sizes.heads * sizes.v;
  const std::string label = sizes.name() + " " + nameOf(dtype) + (packed ? " packed" : "");
  std::vector<Chunk> whole;
  std::vector<float> want;
  for (size_t s = 0; s < lengths.size(); ++s) {
    whole.push_back({static_cast<int>(s), 0, lengths[s]});
    append(want, c.expected[s]);
  }
  for (Isa isa : t.isas()) {
    const std::vector<float> got = runPrefill(t, isa, c, whole);
    t.expectCloseRows(label, got, want, width, 2e-5);
    if (packed) {
      Case plain = c;
      plain.packed = false;
      t.expectSameBits(label + ": a plain cache of the same numbers", runPrefill(t, isa, plain, whole), got);
    }
    if (t.brief()) {
      const std::vector<float> rest = runPrefill(t, isa, c, {{0, 1, lengths[0]}});  // behind a cached position
      t.expectSameBits(label + ": behind a prefix", rest, {got.begin() + width, got.begin() + lengths[0] * width});
      continue;
    }
    for (int threads : {1, 3}) t.expectSameBits(label + ": threads", runPrefill(t, isa, c, whole, {.threads = threads}), got);
    for (int64_t tiles : {2, 3, 64}) t.expectSameBits(label + ": longer rounds", runPrefill(t, isa, c, whole, {.roundTiles = tiles}), got);
    t.expectSameBits(label + ": other blocks and slots", runPrefill(t, isa, c, whole, {.salt = 2}), got);
    int64_t offset = 0;
    for (size_t s = 0; s < lengths.size(); ++s) {
      const std::vector<float> alone(got.begin() + offset * width, got.begin() + (offset + lengths[s]) * width);
      t.expectSameBits(label + ": alone", runPrefill(t, isa, c, {whole[s]}), alone);
      offset += lengths[s];
    }
    // The first sequence in pieces; what lies behind a piece is not there yet (NaN).
    for (int64_t piece : pieces) {
      std::vector<float> rows;
      for (int64_t p = 0; p < lengths[0]; p += piece) {
        const std::vector<Chunk> chunk = {{0, p, std::min(lengths[0], p + piece)}};
        append(rows, runPrefill(t, isa, c, chunk, {.roundTiles = 1 + p % 3}));
      }
      t.expectSameBits(label + ": pieces of " + std::to_string(piece), rows, {got.begin(), got.begin() + lengths[0] * width});
    }
  }
}

}  // namespace

LONGCAT_TEST(mla_prefill) {
  const Sizes tiny{2, 16, 16, 32, 24, 16}, odd{3, 13, 6, 19, 21, 5};
  for (DType dtype : {DType::f32, DType::bf16, DType::f8e4m3}) {
    checkCase(t, tiny, dtype, {70, 1, 3, 64, 129});
    checkCase(t, odd, dtype, {131, 5});
  }
}

LONGCAT_TEST(mla_prefill) {
  checkCase(t, {2, 128, 64, 128, 512, 32}, DType::bf16, {67, 10});
  checkCase(t, {4, 128, 64, 128, 512, 64}, DType::f8e4m3, {20});
  checkCase(t, {1, 128, 64, 128, 512, 16}, DType::bf16, {140});  // more than one tile of 128 query rows
  checkCase(t, {2, 128, 64, 128, 256, 32}, DType::f8e4m3, {200, 30});  // the product that expands keys has several tiles
  checkCase(t, {3, 128, 64, 128, 64, 64}, DType::bf16, {523, 1, 256, 130, 385}, {37, 128, 300});  // many key tiles, and ends everywhere in them
}

LONGCAT_TEST(mla_prefill) {
  // A packed cache: of sizes that fill no vector, of several scales a row, of those that Hopper has a kernel for.
  for (DType dtype : {DType::f32, DType::bf16, DType::f8e4m3}) {
    checkCase(t, {2, 16, 16, 32, 24, 16}, dtype, {70, 1, 3, 64, 129}, {1, 7, 64}, true);
    checkCase(t, {3, 13, 6, 19, 21, 5}, dtype, {131, 5}, {7}, true);
  }
  checkCase(t, {2, 13, 6, 19, 141, 5}, DType::f32, {30, 5}, {7}, true);
  checkCase(t, {2, 128, 64, 128, 512, 32}, DType::bf16, {67, 10}, {64}, true);
  checkCase(t, {4, 128, 64, 128, 512, 64}, DType::f8e4m3, {20}, {7}, true);
  checkCase(t, {3, 128, 64, 128, 64, 16}, DType::bf16, {523, 1, 256, 130, 385}, {37, 128, 300}, true);
}

LONGCAT_TEST(mla_prefill) {
  // More (head, query tile) pairs than any card has room for at once, so that a block takes several: of one key tile and of more, with rows for all of
  // its warps and for some, behind each other in all orders.
  const Case c(t, {64, 128, 64, 128, 64, 64}, DType::bf16, {300, 70, 200});
  const std::vector<Chunk> chunks = {{0, 0, 300}, {1, 0, 70}, {2, 190, 200}};
  std::vector<float> want = c.expected[0];
  append(want, c.expected[1]);
  append(want, Case::rowsOf(c.expected[2], 190, 200, 64 * 128));
  for (Isa isa : t.isas()) {
    const std::vector<float> got = runPrefill(t, isa, c, chunks, {.roundTiles = 8});
    t.expectCloseRows("many jobs", got, want, 64 * 128, 2e-5);
    if (isGpu(isa))
      for (int64_t tiles : {1, 2, 8}) t.expectSameBits("many jobs: rounds of " + std::to_string(tiles), runPrefill(t, isa, c, chunks, {.roundTiles = tiles}), got);
  }
}

LONGCAT_TEST(mla_prefill) {
  // A long chunk of one sequence and one head is cut in rows for many threads: the same bits.
  const Case c(t, {1, 16, 8, 16, 24, 16}, DType::f32, {400});
  for (Isa isa : t.isas()) {
    const std::vector<float> one = runPrefill(t, isa, c, {{0, 0, 400}}, {.threads = 1});
    t.expectCloseRows("long chunk", one, c.expected[0], 16, 2e-5);
    t.expectSameBits("many threads", runPrefill(t, isa, c, {{0, 0, 400}}, {.threads = 5}), one);
  }
}

LONGCAT_TEST(mla_prefill) {
  // A mixed step: decode rows behind the prompt rows are left alone, and change no bit of theirs.
  for (const Sizes sizes : {Sizes{2, 16, 16, 32, 24, 16}, Sizes{2, 128, 64, 128, 64, 64}}) {
    for (bool packed : {false, true}) {
      const Case c(t, sizes, DType::bf16, {30, 40}, packed);
      const int64_t width = sizes.heads * sizes.v;
      for (Isa isa : t.isas()) {
        Step step(t, c, {{0, 0, 30}, {1, 39, 40}}, 1, 1);
        t.run(isa, "mla_prefill", step.prefill(c));
        const std::vector<float> out = t.floats(step.out), prompt = Case::rowsOf(out, 0, 30, width);
        t.expectCloseRows("prompt rows", prompt, c.expected[0], width, 2e-5);
        t.expectSameBits("prompt rows without the decode row", runPrefill(t, isa, c, {{0, 0, 30}}), prompt);
        t.expect(std::isnan(out[30 * width]), "a decode row is not written");
      }
    }
  }
}

LONGCAT_TEST(mla_prefill) {
  const Case c(t, {2, 16, 16, 32, 24, 16}, DType::f32, {30, 40});
  const Step step(t, c, {{0, 0, 30}, {1, 39, 40}}, 1, 1);
  OpArgs arguments = step.prefill(c);
  arguments.scalar[3] = 33;
  t.expectThrows("a weight of another shape", "INTERNAL", "mla_prefill: kv_b must be", [&] { t.run(Isa::plain, "mla_prefill", arguments); });
  arguments.scalar[3] = 0.5;
  t.expectThrows("an impossible size", "INTERNAL", "v_dim must be a whole number", [&] { t.run(Isa::plain, "mla_prefill", arguments); });
}
