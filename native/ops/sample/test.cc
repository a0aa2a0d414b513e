// sample: the generator's known answers, every draw against a slow reading of params.h, log-probabilities, extremes.
#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <string>

#include "ops/harness.h"
#include "ops/sample/params.h"
#include "ops/sample/philox.h"

using namespace longcat;

namespace {

constexpr int64_t kContext = 64;
const float inf = std::numeric_limits<float>::infinity();

/// A step of sampling: R rows, R + 1 slots, row r in slot R - r.
struct Sampling {
  int64_t rows, vocabulary;
  std::vector<std::map<int32_t, Adjustment>> adjusted;  // by slot
  Tensor logits, logitSlot, logitPosition, params, allowed, adjustments, numAdjustments, mask, history, tokens, logprob, topIds, topLogprobs, live, ids, exps,
      stats;

  Sampling(OpContext& t, int64_t r, int64_t v) : Sampling(t, r, v, v) {}
  Sampling(OpContext& t, int64_t r, int64_t v, int64_t maxAdjustments)
      : rows(r), vocabulary(v), adjusted(r + 1), logits(t.randomF32({r + 1, v}, -8, 8)), logitSlot(t.i32({r + 1})), logitPosition(t.i32({r + 1})),
        params(t.f64({r + 1, kNumSampleFields})), allowed(t.i32({(v + 31) / 32}, std::vector<int32_t>((v + 31) / 32, -1))),
        adjustments(t.i32({r + 1, maxAdjustments, kAdjustmentWords})), numAdjustments(t.i32({r + 1})), mask(t.i32({r + 1, (v + 31) / 32})), history(t.i32({r + 1, kContext})),
        tokens(t.i32({r + 1})), logprob(t.f32({r + 1})), topIds(t.i32({r + 1, kMaxLogprobs})), topLogprobs(t.f32({r + 1, kMaxLogprobs})),
        live(t.i32({2})), ids(t.i32({r + 1, kCandidates})), exps(t.f64({r + 1, kCandidates})), stats(t.f64({r + 1, 2})) {
    at<int32_t>(live, 1) = static_cast<int32_t>(r);
    for (int64_t i = 0; i <= r; ++i) {
      at<int32_t>(logitSlot, i) = static_cast<int32_t>(r - i), at<int32_t>(logitPosition, i) = static_cast<int32_t>(5 + i);
      field(i, repetition) = 1, field(i, topP) = 1, field(i, forced) = -1, field(i, numLogprobs) = -1;
    }
  }

  template <class T>
  static T& at(const Tensor& tensor, int64_t i) { return reinterpret_cast<T*>(tensor.data)[i]; }
  int64_t slot(int64_t row) const { return rows - row; }
  double& field(int64_t row, SampleField f) { return at<double>(params, slot(row) * kNumSampleFields + f); }
  float& logit(int64_t row, int64_t id) { return at<float>(logits, row * vocabulary + id); }
  Adjustment& adjustment(int64_t row, int64_t id) { return adjusted[slot(row)].try_emplace(static_cast<int32_t>(id), Adjustment{static_cast<int32_t>(id), 0, 0}).first->second; }
  bool isPenalised(int64_t row) { return longcat::isPenalised(&field(row, SampleField::temperature)); }
  void forbid(int64_t id) { at<uint32_t>(allowed, id / 32) &= ~(1u << id % 32); }
  void permit(int64_t row, int64_t id) { at<uint32_t>(mask, slot(row) * ((vocabulary + 31) / 32) + id / 32) |= 1u << id % 32; }
  bool isAllowed(int64_t id) const { return at<uint32_t>(allowed, id / 32) >> id % 32 & 1; }
  bool isPermitted(int64_t row, int64_t id) { return at<uint32_t>(mask, slot(row) * ((vocabulary + 31) / 32) + id / 32) >> id % 32 & 1; }

  OpArgs arguments(bool withCandidates = true) const {
    for (int64_t i = 0; i <= rows; ++i) {
      at<int32_t>(numAdjustments, i) = static_cast<int32_t>(adjusted[i].size());
      Adjustment* next = &at<Adjustment>(adjustments, i * adjustments.shape[1]);
      for (const auto& [id, adjustment] : adjusted[i]) *next++ = adjustment;
    }
    return args({&logits, &logitSlot, &logitPosition, &params, &allowed, &adjustments, &numAdjustments, &mask, &history, &tokens, &logprob, &topIds,
                 &topLogprobs, &live, nullptr, nullptr, withCandidates ? &ids : nullptr, withCandidates ? &exps : nullptr, withCandidates ? &stats : nullptr},
                {0, static_cast<double>(rows + 1)});
  }
  bool hasRoom(int64_t row, int32_t id) const {
    const auto& list = adjusted[slot(row)];
    return list.count(id) || static_cast<int64_t>(list.size()) < adjustments.shape[1];
  }
  /// Whether the operation's list is that of `adjusted`.
  bool hasAdjustments(int64_t row) const {
    const auto& wanted = adjusted[slot(row)];
    const Adjustment* next = &at<Adjustment>(adjustments, slot(row) * adjustments.shape[1]);
    return at<int32_t>(numAdjustments, slot(row)) == static_cast<int32_t>(wanted.size()) && std::all_of(wanted.begin(), wanted.end(), [&](const auto& entry) {
      const Adjustment& got = *next++;
      return got.id == entry.first && got.count == entry.second.count && got.bias == entry.second.bias;
    });
  }
  int32_t token(int64_t row) const { return at<int32_t>(tokens, row); }
};

/// How many candidates a row has; `exps` are all allowed ids' exponentials by rank.
int64_t numCandidates(const std::vector<double>& exps, int64_t k, double topPValue) {
  const auto all = static_cast<int64_t>(exps.size());
  if (k) return std::min(k, all);
  for (int64_t count = 64;; count *= 8) {
    if (topPValue >= 1 || count >= all) return std::min(count, all);
    double inside = 0, outside = 0;
    for (int64_t j = 0; j < all; ++j) (j < count ? inside : outside) += exps[j];
    if (inside >= topPValue * (inside + outside)) return count;
  }
}

/// The token of a row, as params.h says it, in the plainest way.
int32_t wanted(Sampling& s, int64_t row) {
  struct Id { double l, e; int32_t id; };
  std::vector<Id> order;
  for (int64_t i = 0; i < s.vocabulary; ++i) {
    if (!s.isAllowed(i) || (s.field(row, useMask) != 0 && !s.isPermitted(row, i))) continue;
    double l = s.logit(row, i);
    const auto found = s.adjusted[s.slot(row)].find(static_cast<int32_t>(i));
    const Adjustment adjustment = found == s.adjusted[s.slot(row)].end() ? Adjustment{} : found->second;
    const int32_t generated = adjustment.count & (kInPrompt - 1);
    if (adjustment.count) l = l > 0 ? l / s.field(row, repetition) : l * s.field(row, repetition);
    l -= s.field(row, frequency) * generated + s.field(row, presence) * (generated > 0);
    if (s.field(row, useBias) != 0) l += adjustment.bias;
    order.push_back({std::isnan(l) ? -INFINITY : l, 0, static_cast<int32_t>(i)});
  }
  std::stable_sort(order.begin(), order.end(), [](const Id& a, const Id& b) { return a.l > b.l; });
  const double t = s.field(row, temperature);
  if (t == 0 || order[0].l == -INFINITY) return order[0].id;
  for (Id& i : order) i.e = i.l == order[0].l ? 1 : std::exp((i.l - order[0].l) / t);
  const auto k = static_cast<int64_t>(s.field(row, topK));
  std::vector<double> byRank;
  for (const Id& i : order) byRank.push_back(i.e);
  const int64_t candidates = numCandidates(byRank, k, s.field(row, topP));
  std::sort(order.begin() + candidates, order.end(), [](const Id& a, const Id& b) { return a.id < b.id; });
  std::vector<double> e;  // what is left, and how many of it are candidates
  std::vector<int32_t> ids;
  int64_t kept = 0;
  const bool tail = !(order[candidates - 1].e < s.field(row, minP));
  for (int64_t j = 0; j < static_cast<int64_t>(order.size()); ++j) {
    if ((k && j >= k) || (j && order[j].e < s.field(row, minP)) || (j >= candidates && !tail)) continue;
    e.push_back(order[j].e), ids.push_back(order[j].id);
    if (j < candidates) ++kept;
  }
  const auto sumTo = [&](int64_t n) {  // of the first n, candidates and tail apart
    double a = 0, b = 0;
    for (int64_t j = 0; j < n; ++j) (j < kept ? a : b) += e[j];
    return a + b;
  };
  int64_t n = static_cast<int64_t>(e.size());
  if (s.field(row, topP) < 1) {
    const double goal = s.field(row, topP) * sumTo(n);
    for (int64_t j = 1; j <= n; ++j)
      if (sumTo(j) >= goal) {
        n = j;
        break;
      }
  }
  const double target = uniform(s.field(row, seed), static_cast<uint32_t>(Sampling::at<int32_t>(s.logitPosition, row))) * sumTo(n);
  for (int64_t j = 1; j <= n; ++j)
    if (sumTo(j) > target) return ids[j - 1];
  return ids[n - 1];
}

void expectDraws(TestContext& t, Sampling& s, const std::string& label) {
  std::vector<int32_t> want;
  for (int64_t r = 0; r < s.rows; ++r) want.push_back(wanted(s, r));
  t.run(t.isas().back(), "sample", s.arguments(), 1 + static_cast<int>(t.randomInteger(3)));
  std::vector<int32_t> got = t.integers(s.tokens);
  t.expect(got.back() == -1, "rows beyond the live ones are not written");
  got.resize(s.rows);
  t.expectSame(label, got, want);
  for (int64_t r = 0; r < s.rows; ++r)
    if (s.isPenalised(r) && s.hasRoom(r, want[r])) ++s.adjustment(r, want[r]).count;
  for (int64_t r = 0; r < s.rows; ++r) t.expect(s.hasAdjustments(r), label + ": adjustments");
  for (int64_t r = 0; r < s.rows; ++r)
    t.expect(Sampling::at<int32_t>(s.history, s.slot(r) * kContext + 5 + r) == got[r], label + ": history");
}

}  // namespace

LONGCAT_TEST(sample) {
  const auto words = [](const Philox4x32& r) { return std::vector<int32_t>(r.word, r.word + 4); };
  const auto bits = [](std::vector<uint32_t> w) { return std::vector<int32_t>(w.begin(), w.end()); };
  t.expectSame("zeros", words(philox4x32({{0, 0, 0, 0}}, 0, 0)), bits({0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  t.expectSame("ones", words(philox4x32({{~0u, ~0u, ~0u, ~0u}}, ~0u, ~0u)), bits({0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  t.expectSame("digits of pi", words(philox4x32({{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}}, 0xa4093822, 0x299f31d0)),
               bits({0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
  // 0x6627e8d5 >>> 5 and 0xe169c58d >>> 6 make the first draw of seed 0.
  t.expect(uniform(0, 0) == (double{0x6627e8d5 >> 5} * 67108864 + (0xe169c58d >> 6)) / 9007199254740992.0, "uniform");
  t.expect(uniform(9007199254740991.0, 7) != uniform(4294967295.0, 7), "the seed's high bits count");
  double sum = 0;
  for (uint32_t i = 0; i < 10000; ++i) sum += uniform(42, i);
  t.expect(std::abs(sum / 10000 - .5) < .01, "the mean of many draws is one half");
}

LONGCAT_TEST(sample) {
  // Random rows through a grid of parameters, with and without a tail behind the candidates.
  int run = 0;
  for (int64_t vocabulary : {5, 33, 1024, 1025, 2048, 3001}) {
    for (int repeat = 0; repeat < (t.brief() ? 2 : 12); ++repeat, ++run) {
      Sampling s(t, 6, vocabulary);
      for (int64_t id = 0; id < vocabulary; ++id)
        if (id && t.randomInteger(10) == 0) s.forbid(id);
      const auto pick = [&](std::initializer_list<double> of) { return of.begin()[t.randomInteger(static_cast<int64_t>(of.size()))]; };
      for (int64_t r = 0; r < s.rows; ++r) {
        s.field(r, temperature) = pick({0, 0.3, 1, 1, 5, 1e3});
        s.field(r, topP) = pick({1, 1, 0.9, 0.5, 0.999, 1e-9});
        s.field(r, topK) = pick({0, 0, 1, 40, 1024, 1500, 1e9});
        s.field(r, minP) = pick({0, 0, 0.001, 0.3, 0.97, 1});
        s.field(r, repetition) = pick({1, 1, 1.3, 0.5});
        s.field(r, presence) = pick({0, 0, 2, -2});
        s.field(r, frequency) = pick({0, 0, 0.5, -2});
        s.field(r, seed) = pick({0, 1, 4294967296.0, 9007199254740991.0, double(run)});
        s.field(r, useBias) = pick({0, 1});
        s.field(r, useMask) = pick({0, 0, 1});
        s.field(r, hostDraw) = pick({0, 1});
        for (int64_t id = 0; id < vocabulary; ++id) {
          s.logit(r, id) = std::round(s.logit(r, id) * 64) / (t.randomInteger(2) ? 64 : 1e3f);  // ties too
          if (t.randomInteger(4) == 0) s.adjustment(r, id).count = static_cast<int32_t>(t.randomInteger(3)) | (t.randomInteger(2) ? kInPrompt : 0);
          if (t.randomInteger(8) == 0) s.adjustment(r, id).bias = static_cast<float>(t.randomInteger(11) - 5);
          if (t.randomInteger(3) != 0 || id == 0) s.permit(r, id);
        }
      }
      expectDraws(t, s, "vocabulary " + std::to_string(vocabulary) + ", run " + std::to_string(run));
    }
  }
}

LONGCAT_TEST(sample) {
  // More ids than are ever ranked at once: prefixes and tails that end far down, many equal logits, rows that begin anywhere.
  int run = 0;
  for (int64_t vocabulary : {4097, 9001, 10000}) {
    for (int repeat = 0; repeat < (t.brief() ? 1 : 3); ++repeat, ++run) {
      Sampling s(t, 8, vocabulary);
      for (int64_t id = 0; id < vocabulary; ++id)
        if (id && t.randomInteger(50) == 0) s.forbid(id);
      const auto pick = [&](std::initializer_list<double> of) { return of.begin()[t.randomInteger(static_cast<int64_t>(of.size()))]; };
      for (int64_t r = 0; r < s.rows; ++r) {
        s.field(r, temperature) = pick({0, 1, 3, 1e3});
        s.field(r, topP) = r < 3 ? 1 : pick({0.3, 0.9, 0.999});
        s.field(r, topK) = r < 5 ? 0 : pick({600, 3000, 4096, 4097, 8000});
        s.field(r, minP) = pick({0, 0, 1e-4, 0.1});
        s.field(r, presence) = pick({0, 0, 1});
        s.field(r, seed) = static_cast<double>(10 * run + r);
        s.field(r, useMask) = pick({0, 0, 1});
        s.field(r, hostDraw) = pick({0, 0, 1});
        s.field(r, numLogprobs) = pick({-1, 20});
        const int64_t levels = r % 4 ? 0 : 1 + t.randomInteger(3);  // so many different logits, where that is set
        for (int64_t id = 0; id < vocabulary; ++id) {
          if (levels) s.logit(r, id) = static_cast<float>(t.randomInteger(levels));
          else if (r % 4 == 1 && id % 4 == 0 && id / 4 % 32 == 5) s.logit(r, id) += 16;  // the best ones lie in step
          if (t.randomInteger(4) == 0) s.adjustment(r, id).count = 1;
          if (t.randomInteger(3) != 0 || id == 0) s.permit(r, id);
        }
      }
      expectDraws(t, s, "vocabulary " + std::to_string(vocabulary) + ", run " + std::to_string(run));
    }
  }
}

LONGCAT_TEST(sample) {
  // Vocabularies of real models: rows as steep as a text's, even ones, ones with heaps of equal logits; every way to draw. Few rows and many,
  // which a GPU may share among more or fewer blocks.
  for (const int64_t rows : t.fewOrAll<int64_t>({5}, {5, 12, 20, 40})) {
    const int64_t vocabulary = rows == 12 ? 131072 : 40000 + rows;
    Sampling s(t, rows, vocabulary);
    for (int64_t id = 1; id < vocabulary; ++id)
      if (t.randomInteger(50) == 0) s.forbid(id);
    const auto pick = [&](std::initializer_list<double> of) { return of.begin()[t.randomInteger(static_cast<int64_t>(of.size()))]; };
    for (int64_t r = 0; r < rows; ++r) {
      s.field(r, temperature) = pick({0, 0.3, 1, 1, 1, 1.5});
      s.field(r, topP) = pick({1, 0.1, 0.5, 0.9, 0.95, 0.999, 0.999999});
      s.field(r, topK) = pick({0, 0, 0, 0, 40, 1000, 3900});
      s.field(r, minP) = pick({0, 0, 0, 1e-4, 0.05});
      s.field(r, presence) = pick({0, 0, 1});
      s.field(r, repetition) = pick({1, 1, 1.2});
      s.field(r, seed) = static_cast<double>(100 * rows + r);
      s.field(r, useMask) = pick({0, 0, 1});
      s.field(r, useBias) = pick({0, 0, 1});
      s.field(r, numLogprobs) = pick({-1, -1, 5});
      const int64_t shape = r % 4, stride = 2 * t.randomInteger(1000) + 7001;
      for (int64_t rank = 0; rank < vocabulary; ++rank) {
        const int64_t id = rank * stride % vocabulary;  // not all ids, where the two have a factor in common: the others stay as they are
        if (shape == 0) s.logit(r, id) = static_cast<float>(-1.5 * std::log(rank + 1.0));
        if (shape == 1) s.logit(r, id) = s.logit(r, id) * 0.25f + s.logit(r, rank) * 0.25f;
        if (shape == 2) s.logit(r, id) = static_cast<float>(t.randomInteger(12)) * (rank % 3 == 0 ? 1.0f : 0.125f);
        if (t.randomInteger(3) != 0 || id == 0) s.permit(r, id);
        if (t.randomInteger(20) == 0) s.adjustment(r, id).count = static_cast<int32_t>(t.randomInteger(3)) | (t.randomInteger(2) ? kInPrompt : 0);
        if (t.randomInteger(50) == 0) s.adjustment(r, id).bias = static_cast<float>(t.randomInteger(11) - 5);
      }
    }
    for (int step = 0; step < (t.brief() ? 1 : 2); ++step) expectDraws(t, s, "vocabulary " + std::to_string(vocabulary) + ", step " + std::to_string(step));
  }
}

LONGCAT_TEST(sample) {
  // Lists of adjustments: none yet, all ids, one that is full, ids at the ends of it; drawn again and again, as in a sequence's steps.
  for (int64_t vocabulary : {40, 4200}) {
    Sampling s(t, 5, vocabulary, 64);
    const auto id = [&](int64_t i) { return vocabulary * i / 64; };
    for (int64_t r = 0; r < s.rows; ++r) s.field(r, SampleField::temperature) = r % 2, s.field(r, presence) = 5, s.field(r, frequency) = 0.25;
    for (int64_t i = 0; i < std::min<int64_t>(vocabulary, 64); ++i) s.adjustment(1, id(i)).bias = static_cast<float>(i % 3), s.adjustment(2, id(i)).count = 1;
    s.adjustment(3, 0).count = kInPrompt, s.adjustment(3, vocabulary - 1).count = 2;
    s.field(1, useBias) = 1, s.field(2, repetition) = 1.5, s.field(3, repetition) = 2;
    for (int step = 0; step < (t.brief() ? 2 : 6); ++step) expectDraws(t, s, "vocabulary " + std::to_string(vocabulary) + ", step " + std::to_string(step));
  }
}

LONGCAT_TEST(sample) {
  // Temperatures to the ends of float64: the tiny ones are greedy, the huge ones uniform; never an id that does not exist.
  for (double temperature : t.fewOrAll({5e-324, 1e3}, {-0.0, 5e-324, 1e-300, 1e-45, 1e-10, 1e3, 1e308})) {
    Sampling s(t, 20, 1100);
    for (int64_t r = 0; r < s.rows; ++r) s.field(r, SampleField::temperature) = temperature, s.field(r, seed) = static_cast<double>(r);
    std::vector<int32_t> best;
    for (int64_t r = 0; r < s.rows; ++r) {
      const float* row = &s.logit(r, 0);
      best.push_back(static_cast<int32_t>(std::max_element(row, row + 1100) - row));
    }
    expectDraws(t, s, "temperature " + std::to_string(temperature));
    std::vector<int32_t> got = t.integers(s.tokens);
    got.resize(20);
    if (temperature < 1e-6) t.expectSame("greedy", got, best);
    else t.expect(std::count_if(got.begin(), got.end(), [](int32_t id) { return id >= 550; }) > 3, "spread over the vocabulary");
  }
}

LONGCAT_TEST(sample) {
  // Rows that no model should give: all −∞, NaN, +∞; a mask that leaves nothing; a forced token.
  for (double temperature : {0.0, 1.0}) {
    Sampling s(t, 8, 40);
    s.forbid(0), s.forbid(7);
    for (int64_t r = 0; r < s.rows; ++r) s.field(r, SampleField::temperature) = temperature, s.field(r, hostDraw) = double(r % 2);
    for (int64_t id = 0; id < 40; ++id) {
      s.logit(0, id) = s.logit(1, id) = -inf;
      s.logit(2, id) = s.logit(3, id) = NAN;
      s.logit(4, id) = id == 9 ? 3 : NAN;
      s.logit(5, id) = id == 11 ? inf : 5;
    }
    s.field(6, useMask) = 1;
    s.field(7, forced) = 7;
    s.field(7, useMask) = 1;
    s.field(7, presence) = 1;
    t.run(Isa::plain, "sample", s.arguments());
    std::vector<int32_t> got = t.integers(s.tokens);
    got.resize(8);
    t.expectSame("lowest allowed, the only number, infinity, lowest allowed, forced", got, {1, 1, 1, 1, 9, 11, 1, 7});
    s.adjustment(7, 7).count = 1;
    t.expect(s.hasAdjustments(7), "a forced token is counted");
  }
  Sampling s(t, 2, 40);
  Sampling::at<int32_t>(s.logitSlot, 0) = -1;
  Sampling::at<int32_t>(s.logitPosition, 1) = kContext;
  t.run(Isa::plain, "sample", s.arguments(false));
  t.expect(s.token(0) == -1, "no token where none is wanted");
  t.expectSame("history is not written beyond its end", t.integers(s.history), std::vector<int32_t>(3 * kContext, 0));
}

LONGCAT_TEST(sample) {
  // Log-probabilities are the model's own: before penalties, masks and temperature, over the whole vocabulary.
  Sampling s(t, 3, 300);
  s.forbid(17);
  s.logit(0, 17) = 9, s.logit(0, 30) = 8.5, s.logit(0, 40) = 8.5, s.logit(0, 50) = -inf;
  s.field(0, numLogprobs) = 5, s.field(0, forced) = 50, s.field(0, presence) = 2, s.field(0, SampleField::temperature) = 0.1;
  s.field(1, numLogprobs) = 0;
  t.run(Isa::plain, "sample", s.arguments());
  long double sum = 0;
  for (int64_t id = 0; id < 300; ++id) sum += std::exp(static_cast<long double>(s.logit(0, id)));
  const std::vector<int32_t> ids = t.integers(s.topIds);
  const std::vector<float> top = t.floats(s.topLogprobs), logprob = t.floats(s.logprob);
  t.expectSame("best ids, ties by lower id, only allowed ones", {ids[0], ids[1], ids[5], ids[kMaxLogprobs]}, {30, 40, -1, -1});
  const float best = static_cast<float>(8.5L - std::log(sum));
  t.expectClose("their log-probabilities", {top[0], top[1]}, {best, best}, 1e-6);
  t.expect(top[2] >= top[3] && top[3] >= top[4] && top[4] > -100, "descending");
  t.expectSameBits("minus infinity is the floor; nothing where nothing is asked", {logprob[0], logprob[2]}, {-9999, 0});
  t.expect(logprob[1] < 0 && logprob[1] > -9, "the greedy token's");

  Sampling few(t, 1, 3);
  few.forbid(1);
  few.field(0, numLogprobs) = 20;
  t.run(Isa::plain, "sample", few.arguments());
  t.expect(t.integers(few.topIds)[2] == -1 && t.integers(few.topIds)[1] != 1, "no more alternatives than allowed ids");
}

LONGCAT_TEST(sample) {
  // What a draw by the host sees. A GPU's exp is not libm's: each of the two may be off by an ulp.
  const double tolerance = isGpu(t.isas().back()) ? 1e-15 : 0;
  for (int64_t vocabulary : {20, 1024, 3000}) {
    Sampling s(t, 2, vocabulary);
    s.forbid(3);
    for (int64_t r = 0; r < 2; ++r) s.field(r, SampleField::temperature) = 2, s.field(r, hostDraw) = 1, s.field(r, topP) = .3;
    s.field(1, topK) = 2000, s.field(1, topP) = 1;
    std::vector<double> values;
    for (int64_t id = 0; id < vocabulary; ++id)
      if (id != 3) values.push_back(s.logit(0, id));
    std::sort(values.begin(), values.end(), std::greater<>());
    t.run(Isa::plain, "sample", s.arguments());
    std::vector<double> byRank;
    for (const double value : values) byRank.push_back(std::exp((value - values[0]) / 2));
    const int64_t listed = std::min(numCandidates(byRank, 0, .3), kCandidates);
    double rest = 0;
    bool same = true;
    for (int64_t j = 0; j < static_cast<int64_t>(values.size()); ++j) {
      const double e = j ? std::exp((values[j] - values[0]) / 2) : 1;
      if (j >= listed) rest += e;
      else same = same && std::abs(Sampling::at<double>(s.exps, j) - e) <= tolerance * e && s.logit(0, Sampling::at<int32_t>(s.ids, j)) == static_cast<float>(values[j]);
    }
    t.expect(same, "candidates by rank");
    if (listed < kCandidates) t.expect(Sampling::at<int32_t>(s.ids, listed) == -1 && Sampling::at<double>(s.exps, listed) == 0, "then none");
    for (int64_t r : {0, 1}) {
      const int64_t shown = r ? std::min(vocabulary - 1, kCandidates) : listed;
      if (r == 1) {
        rest = 0;
        std::vector<std::pair<double, int64_t>> order;
        for (int64_t id = 0; id < vocabulary; ++id)
          if (id != 3) order.push_back({-double{s.logit(1, id)}, id});
        std::sort(order.begin(), order.end());
        for (size_t j = shown; j < order.size(); ++j) rest += std::exp((order[0].first - order[j].first) / 2);
      }
      t.expectClose("mass beyond", {static_cast<float>(Sampling::at<double>(s.stats, 2 * r))}, {static_cast<float>(rest)}, 1e-6);
      t.expect(Sampling::at<double>(s.stats, 2 * r + 1) == double(vocabulary - 1 - shown), "ids beyond");
    }
  }
}

LONGCAT_TEST(sample) {
  // Rows of a verification: slot 0's three rows and slot 1's two, drawn from in turn. Tokens are what the logits say, 10 to 14.
  for (Isa isa : t.isas()) {
    const int64_t rows = 5, vocabulary = 40;
    Sampling s(t, rows, vocabulary);
    for (int64_t r = 0; r < rows; ++r) s.logit(r, 10 + r) = 50;
    for (int64_t slot = 0; slot < 2; ++slot) Sampling::at<double>(s.params, slot * kNumSampleFields + presence) = 1;
    // By turn: rows 0 and 1 are the first rows of slots 0 and 1; 2 and 3 their second, 4 slot 0's third. Slot 0's draft was 10, as is drawn;
    // slot 1's was 30, which is not.
    const int32_t slotOf[] = {0, 1, 0, 1, 0}, positionOf[] = {4, 9, 5, 10, 6}, tokenOf[] = {20, 21, 10, 30, 12};
    Tensor token = t.i32({rows + 1}), lengths = t.i32({rows + 1}, {3, 8, 0, 0, 0, 0});
    for (int64_t r = 0; r < rows; ++r) {
      Sampling::at<int32_t>(s.logitSlot, r) = slotOf[r], Sampling::at<int32_t>(s.logitPosition, r) = positionOf[r];
      Sampling::at<int32_t>(token, r) = tokenOf[r];
    }
    Sampling::at<int32_t>(s.history, 3) = 20, Sampling::at<int32_t>(s.history, kContext + 8) = 21;
    const int32_t turns[] = {0, 2, 4, 5};
    OpArgs arguments = s.arguments(false);
    arguments.tensor[14] = &token, arguments.tensor[15] = &lengths, arguments.scalar[1] = 2;
    std::vector<int32_t> tokens(5);
    for (int turn = 0; turn < 3; ++turn) {
      Sampling::at<int32_t>(s.live, 0) = turns[turn], Sampling::at<int32_t>(s.live, 1) = turns[turn + 1];
      t.run(isa, "sample", arguments);
      for (int r = turns[turn]; r < turns[turn + 1]; ++r) tokens[r] = s.token(r - turns[turn]);
    }
    t.expectSame("tokens; none behind a rejected draft", tokens, {10, 11, 12, -1, 14});
    t.expectSame("lengths", t.integers(lengths), {6, 9, 0, 0, 0, 0});
    std::vector<int32_t> history((rows + 1) * kContext);
    history[3] = 20, history[4] = 10, history[5] = 12, history[6] = 14, history[kContext + 8] = 21, history[kContext + 9] = 11;
    t.expectSame("history", t.integers(s.history), history);
    for (int32_t id : {10, 12, 14}) s.adjusted[0][id] = {id, 1, 0};
    s.adjusted[1][11] = {11, 1, 0};
    t.expect(s.hasAdjustments(rows) && s.hasAdjustments(rows - 1), "accepted tokens are counted");
  }
}

LONGCAT_TEST(sample) {
  // Drafts: the history gets them, and nothing else changes.
  for (Isa isa : t.isas()) {
    Sampling s(t, 3, 40);
    for (int64_t r = 0; r < 3; ++r) {
      s.logit(r, 10 + r) = 50, s.field(r, presence) = 1, s.field(r, numLogprobs) = 3;
      s.field(r, forced) = 5, s.field(r, useMask) = 1;  // for the next token alone
    }
    Sampling::at<int32_t>(s.logitPosition, 1) = -1;
    Tensor token = t.i32({4}), lengths = t.i32({4}, {1, 1, 1, 1}), drafted = t.i32({9});
    OpArgs arguments = s.arguments(false);
    arguments.tensor[9] = &drafted, arguments.tensor[14] = &token, arguments.tensor[15] = &lengths;
    for (int absent : {10, 11, 12}) arguments.tensor[absent] = nullptr;
    arguments.scalar[0] = 2;
    t.run(isa, "sample", arguments);
    std::vector<int32_t> tokens = t.integers(drafted);
    t.expectSame("tokens", {tokens.begin(), tokens.begin() + 4}, {10, -1, 12, -1});
    std::vector<int32_t> history(4 * kContext);
    history[3 * kContext + 6] = 10, history[1 * kContext + 8] = 12;
    t.expectSame("the second draft's place is one further", t.integers(s.history), history);
    t.expectSame("lengths", t.integers(lengths), {1, 1, 1, 1});
    t.expect(s.hasAdjustments(0) && s.hasAdjustments(1) && s.hasAdjustments(2), "drafts are not counted");
  }
}
