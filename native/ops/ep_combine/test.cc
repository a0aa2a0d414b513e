// Whole exchanges (ep_dispatch, moe_experts without its sum, ep_combine) against one rank that holds all experts: the same sums in another order
// of association, each near 1 in size: 1e-5.
#include "ops/exchange_test.h"

using namespace longcat;
using namespace longcat::reference;

namespace {

std::string name(const ExchangeSizes& s, DType dtype, Isa isa) {
  return std::to_string(s.ranks) + " ranks, " + std::to_string(s.topK) + " of " + std::to_string(s.experts) + " + " + std::to_string(s.zeros) + " experts, " + nameOf(dtype) + " [" +
         std::to_string(s.ffn) + ", " + std::to_string(s.width) + "], isa " + std::to_string(static_cast<int>(isa));
}

/// Tokens that choose among experts [from, from + all), a number for each rank.
std::vector<Tokens> tokensOfRanks(TestContext& t, const ExchangeSizes& s, const std::vector<int64_t>& rows, int32_t all, int32_t from = 0) {
  std::vector<Tokens> tokens;
  for (int64_t n : rows) tokens.push_back(tokensOf(t, randomChoices(t, n, s.topK, all, from), s.topK, s.width));
  return tokens;
}

std::vector<float> rowOf(const std::vector<float>& rows, int64_t r, int64_t width) { return {rows.begin() + r * width, rows.begin() + (r + 1) * width}; }

}  // namespace

// Random routing, everything to one rank, nothing to one, ranks without tokens, one token in all, none at all: in a row, in programs of
// different capacities, at each rank's own pace.
LONGCAT_TEST(ep_combine) {
  for (const ExchangeSizes& s : {ExchangeSizes{1, 20, 24, 48, 2, 4, 2}, ExchangeSizes{2, 20, 7, 5, 3, 6, 2}, ExchangeSizes{2, 16, 256, 128, 6, 24, 12}, ExchangeSizes{4, 12, 96, 48, 8, 8, 4},
                                ExchangeSizes{4, 12, 130, 40, 3, 4, 3}, ExchangeSizes{7, 9, 33, 16, 5, 14, 3}}) {
    for (DType dtype : kWeightDtypes) {
      const Experts all = randomExperts(t, dtype, s.experts, s.width, s.ffn);
      const int64_t most = s.windowTokens;
      const int32_t any = s.experts + s.zeros, local = static_cast<int32_t>(s.localExperts());
      std::vector<int64_t> full(static_cast<size_t>(s.ranks), most), ragged, single(static_cast<size_t>(s.ranks), 0), nothing = single;
      for (int64_t r = 0; r < s.ranks; ++r) ragged.push_back(r % 2 ? 0 : 3 + r);
      single.back() = 1;
      std::vector<std::vector<Tokens>> steps = {tokensOfRanks(t, s, full, any), tokensOfRanks(t, s, single, any), tokensOfRanks(t, s, ragged, any), tokensOfRanks(t, s, nothing, any)};
      std::vector<int64_t> capacities = {most, 1, 9, 2};
      if (local + s.zeros >= s.topK) steps.push_back(tokensOfRanks(t, s, full, local + s.zeros, s.experts - local)), capacities.push_back(most);  // all to the last
      if (any - local >= s.topK) steps.push_back(tokensOfRanks(t, s, full, any - local, local)), capacities.push_back(most);                        // none to the first
      if (s.zeros >= s.topK) steps.push_back(tokensOfRanks(t, s, ragged, s.zeros, s.experts)), capacities.push_back(9);                            // zero experts alone
      for (Isa isa : t.isas()) {
        if (isGpu(isa)) continue;
        const Ranks ranks(t, s, all);
        const auto outs = ranks.run(isa, 2, steps, capacities);
        const auto again = ranks.run(isa, 1, steps, capacities);
        for (size_t n = 0; n < steps.size(); ++n) {
          for (size_t r = 0; r < steps[n].size(); ++r) {
            const std::string what = name(s, dtype, isa) + ", step " + std::to_string(n) + ", rank " + std::to_string(r);
            const std::vector<float> alone = withoutExchange(t, isa, s, all, steps[n][r]);
            t.expectClose(what, outs[n][r], alone, 1e-5);
            if (s.ranks == 1) t.expectSameBits(what + ": moe_experts' bits", outs[n][r], alone);
            t.expectSameBits(what + ": another run, other threads", again[n][r], outs[n][r]);
          }
        }
      }
    }
  }
}

// A token's bits: whoever its home rank is, whoever comes along, in whatever order.
LONGCAT_TEST(ep_combine) {
  const ExchangeSizes s{4, 16, 144, 96, 5, 12, 4};
  for (DType dtype : kWeightDtypes) {
    const Experts all = randomExperts(t, dtype, s.experts, s.width, s.ffn);
    const Tokens tokens = tokensOf(t, randomChoices(t, 24, s.topK, s.experts + s.zeros), s.topK, s.width);
    std::vector<std::vector<Tokens>> steps;
    const auto step = [&] { return steps.emplace_back(static_cast<size_t>(s.ranks)).data(); };
    Tokens* spread = step();
    for (int64_t i = 0; i < tokens.rows(); ++i) spread[i % s.ranks].add(tokens, i);
    Tokens* turned = step();
    for (int64_t i = tokens.rows(); i-- > 0;) turned[(i + i / 7) % s.ranks].add(tokens, i);
    step()[2].add(tokens, 11);
    for (Isa isa : t.isas()) {
      if (isGpu(isa)) continue;
      const auto outs = Ranks(t, s, all).run(isa, 2, steps, {8, 16, 1});
      std::vector<int64_t> placeTurned(static_cast<size_t>(tokens.rows())), count(static_cast<size_t>(s.ranks));
      for (int64_t i = tokens.rows(); i-- > 0;) placeTurned[static_cast<size_t>(i)] = count[static_cast<size_t>((i + i / 7) % s.ranks)]++;
      for (int64_t i = 0; i < tokens.rows(); ++i) {
        const std::vector<float> first = rowOf(outs[0][static_cast<size_t>(i % s.ranks)], i / s.ranks, s.width);
        t.expectSameBits("token " + std::to_string(i) + " elsewhere", rowOf(outs[1][static_cast<size_t>((i + i / 7) % s.ranks)], placeTurned[static_cast<size_t>(i)], s.width), first);
        if (i == 11) t.expectSameBits("a token alone", outs[2][2], first);
      }
    }
  }
}

// With FP8 the experts see what the codes stand for; the identity term is the row itself.
LONGCAT_TEST(ep_combine) {
  ExchangeSizes s{2, 10, 200, 64, 3, 8, 0};
  const Experts all = randomExperts(t, DType::bf16, s.experts, s.width, s.ffn);
  const std::vector<Tokens> tokens = tokensOfRanks(t, s, {10, 7}, s.experts);
  std::vector<Tokens> rounded = tokens;
  for (Tokens& of : rounded) {
    std::vector<float> values;
    for (int64_t r = 0; r < of.rows(); ++r) {
      const Fp8Weight packed = t.fp8(1, s.width, rowOf(of.h, r, s.width));
      for (float value : t.floats(packed.data, &packed.scale)) values.push_back(value);
    }
    of.h = values;
  }
  for (Isa isa : t.isas()) {
    if (isGpu(isa)) continue;
    const auto plain = Ranks(t, s, all).run(isa, 2, {rounded}, {10});
    ExchangeSizes packed = s;
    packed.fp8 = true;
    const auto fp8 = Ranks(t, packed, all).run(isa, 2, {tokens, tokens}, {10, 10});
    for (size_t r = 0; r < 2; ++r) {
      for (size_t n = 0; n < 2; ++n) t.expectSameBits("FP8 on the way", fp8[n][r], plain[0][r]);
    }
  }
}

// Many exchanges in a row, of changing capacity and of ranks that run apart: nothing that a slower rank still needs is written over.
LONGCAT_TEST(ep_combine) {
  const ExchangeSizes s{4, 24, 40, 8, 3, 8, 2};
  const Experts all = randomExperts(t, DType::f32, s.experts, s.width, s.ffn);
  std::vector<std::vector<Tokens>> steps;
  std::vector<int64_t> capacities;
  for (int n = 0; n < (t.brief() ? 20 : 150); ++n) {
    capacities.push_back(1 + t.randomInteger(s.windowTokens));
    std::vector<int64_t> rows;
    for (int64_t r = 0; r < s.ranks; ++r) rows.push_back(t.randomInteger(capacities.back() + 1));
    steps.push_back(tokensOfRanks(t, s, rows, s.experts + s.zeros));
  }
  const Isa isa = t.isas().back();
  if (isGpu(isa)) return;
  const auto outs = Ranks(t, s, all).run(isa, 1, steps, capacities);
  for (size_t n = 0; n < steps.size(); ++n) {
    for (size_t r = 0; r < steps[n].size(); ++r) {
      t.expectClose("exchange " + std::to_string(n) + " of rank " + std::to_string(r), outs[n][r], withoutExchange(t, isa, s, all, steps[n][r]), 1e-5);
    }
  }
}
