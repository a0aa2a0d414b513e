// ep_dispatch: which rows arrive where, the plan of them, waits that are given up, and what is refused. ep_combine's tests have the numbers.
#include <cstring>

#include "ops/exchange_test.h"

using namespace longcat;
using namespace longcat::reference;

namespace {

struct Arrived {
  std::vector<int32_t> experts;  // local
  std::vector<float> weights, h;
  bool operator==(const Arrived&) const = default;
};

/// The rows that `to` should get of `tokens`, in order.
std::vector<Arrived> expected(const ExchangeSizes& s, const Tokens& tokens, int64_t to) {
  std::vector<Arrived> rows;
  for (int64_t t = 0; t < tokens.rows(); ++t) {
    Arrived row;
    for (int64_t k = 0; k < s.topK; ++k) {
      const int64_t id = tokens.ids[static_cast<size_t>(t)][static_cast<size_t>(k)];
      if (id >= s.experts || id / s.localExperts() != to) continue;
      row.experts.push_back(static_cast<int32_t>(id % s.localExperts()));
      row.weights.push_back(tokens.weights[static_cast<size_t>(t * s.topK + k)]);
    }
    if (row.experts.empty()) continue;
    row.h.assign(tokens.h.begin() + t * s.width, tokens.h.begin() + (t + 1) * s.width);
    rows.push_back(row);
  }
  return rows;
}

/// What the plan of rank `to` says of the j-th row from rank `from`: through slot_plan to plan_row, and expert_start for whose entry that is.
Arrived planned(TestContext& t, const Ranks& ranks, int64_t to, const RankProgram& p, int64_t from, int64_t j) {
  const ExchangeSizes& s = ranks.sizes;
  const std::vector<int32_t> start = t.integers(p.expertStart), planRow = t.integers(p.planRow), slotPlan = t.integers(p.slotPlan);
  const int64_t stride = p.received.shape[0] / s.ranks, capacity = p.h.shape[0];
  const auto* weights = reinterpret_cast<const float*>(ranks.window[static_cast<size_t>(to)].data + s.layout().weights) + (from * s.windowTokens + j) * s.slots();
  Arrived row;
  for (int64_t slot = 0; slot < s.slots(); ++slot) {
    const int32_t entry = slotPlan[static_cast<size_t>((from * capacity + j) * s.slots() + slot)];
    if (entry < 0) break;
    t.expect(planRow[static_cast<size_t>(entry)] == from * stride + j, "a plan entry names its row");
    row.experts.push_back(static_cast<int32_t>(std::upper_bound(start.begin(), start.end(), entry) - start.begin()) - 1);
    row.weights.push_back(weights[slot]);
  }
  const float* h = reinterpret_cast<const float*>(p.received.data) + (from * stride + j) * s.width;
  row.h.assign(h, h + s.width);
  return row;
}

void expectArrivals(TestContext& t, const std::string& what, Isa isa, const ExchangeSizes& s, const std::vector<Tokens>& tokens, int64_t capacity) {
  const Experts none = randomExperts(t, DType::f32, s.experts, 1, 1);
  const Ranks ranks(t, s, none);
  std::vector<RankProgram> programs;
  for (int64_t r = 0; r < s.ranks; ++r) programs.push_back(ranks.program(r, tokens[static_cast<size_t>(r)], capacity));
  ranks.onThreads(2, [&](int64_t r, ThreadPool& pool) { runOn(pool, isa, "ep_dispatch", ranks.dispatchArgs(r, programs[static_cast<size_t>(r)])); });
  for (int64_t to = 0; to < s.ranks; ++to) {
    const RankProgram& p = programs[static_cast<size_t>(to)];
    const std::vector<int32_t> start = t.integers(p.expertStart), planRow = t.integers(p.planRow);
    size_t entries = 0;
    bool same = true;
    for (int64_t from = 0; from < s.ranks; ++from) {
      const std::vector<Arrived> want = expected(s, tokens[static_cast<size_t>(from)], to);
      for (size_t j = 0; j < want.size(); ++j) {
        same = same && planned(t, ranks, to, p, from, static_cast<int64_t>(j)) == want[j];
        entries += want[j].experts.size();
      }
    }
    t.expect(same, what + ": rows, experts and weights at rank " + std::to_string(to));
    t.expect(start[0] == 0 && start.back() == static_cast<int32_t>(entries), what + ": the plan has an entry for each expert of each row");
    for (size_t e = 0; e + 1 < start.size(); ++e) {
      t.expect(std::is_sorted(planRow.begin() + start[e], planRow.begin() + start[e + 1]), what + ": rows ascend within an expert");
    }
  }
}

std::string name(const ExchangeSizes& s) {
  return std::to_string(s.ranks) + " ranks, " + std::to_string(s.topK) + " of " + std::to_string(s.experts) + " + " + std::to_string(s.zeros) + ", width " + std::to_string(s.width);
}

}  // namespace

LONGCAT_TEST(ep_dispatch) {
  for (Isa isa : t.isas()) {
    if (isGpu(isa)) continue;
    for (const ExchangeSizes& s : {ExchangeSizes{1, 8, 7, 1, 2, 3, 2}, ExchangeSizes{2, 12, 96, 1, 3, 6, 2}, ExchangeSizes{4, 9, 130, 1, 6, 8, 4}, ExchangeSizes{7, 6, 33, 1, 5, 7, 3},
                                  ExchangeSizes{3, 10, 64, 1, 12, 24, 12}}) {
      std::vector<Tokens> random, few, toOne;
      for (int64_t r = 0; r < s.ranks; ++r) {
        random.push_back(tokensOf(t, randomChoices(t, s.windowTokens - r, s.topK, s.experts + s.zeros), s.topK, s.width));
        few.push_back(tokensOf(t, randomChoices(t, r == s.ranks - 1 ? 1 : 0, s.topK, s.experts + s.zeros), s.topK, s.width));
        // To the last rank as many experts as it has, and zero experts.
        const auto last = static_cast<int32_t>(s.localExperts());
        if (last + s.zeros >= s.topK) toOne.push_back(tokensOf(t, randomChoices(t, s.windowTokens, s.topK, last + s.zeros, s.experts - last), s.topK, s.width));
      }
      expectArrivals(t, name(s), isa, s, random, s.windowTokens);
      expectArrivals(t, name(s) + ", one token in all", isa, s, few, 3);
      expectArrivals(t, name(s) + ", no tokens", isa, s, std::vector<Tokens>(static_cast<size_t>(s.ranks)), 1);
      if (!toOne.empty()) expectArrivals(t, name(s) + ", all to one rank", isa, s, toOne, s.windowTokens);
    }
  }
}

// With FP8 the rows arrive as what their codes stand for: those of a matrix of one row.
LONGCAT_TEST(ep_dispatch) {
  for (Isa isa : t.isas()) {
    if (isGpu(isa)) continue;
    for (int64_t width : {1, 96, 128, 130, 400}) {
      const ExchangeSizes s{2, 5, width, 1, 2, 4, 1, true};
      std::vector<Tokens> tokens;
      for (int64_t r = 0; r < s.ranks; ++r) tokens.push_back(tokensOf(t, randomChoices(t, 4 + r, s.topK, s.experts + s.zeros), s.topK, width));
      const Ranks ranks(t, s, randomExperts(t, DType::f32, s.experts, 1, 1));
      std::vector<RankProgram> programs;
      for (int64_t r = 0; r < s.ranks; ++r) programs.push_back(ranks.program(r, tokens[static_cast<size_t>(r)], 5));
      ranks.onThreads(2, [&](int64_t r, ThreadPool& pool) { runOn(pool, isa, "ep_dispatch", ranks.dispatchArgs(r, programs[static_cast<size_t>(r)])); });
      for (int64_t from = 0; from < s.ranks; ++from) {
        std::vector<Arrived> want = expected(s, tokens[static_cast<size_t>(from)], 1);
        for (size_t j = 0; j < want.size(); ++j) {
          const Fp8Weight packed = t.fp8(1, width, want[j].h);
          want[j].h = t.floats(packed.data, &packed.scale);
          t.expect(planned(t, ranks, 1, programs[1], from, static_cast<int64_t>(j)) == want[j], "FP8 rows of width " + std::to_string(width));
        }
      }
    }
  }
}

// A rank that others leave alone: it says for whom it waits, and gives up when it is told to, in either half.
LONGCAT_TEST(ep_dispatch) {
  const ExchangeSizes s{3, 4, 32, 16, 2, 6, 1};
  const Ranks ranks(t, s, randomExperts(t, DType::f32, s.experts, s.width, s.ffn));
  std::vector<RankProgram> programs;
  for (int64_t r = 0; r < s.ranks; ++r) programs.push_back(ranks.program(r, tokensOf(t, randomChoices(t, 2, s.topK, s.experts), s.topK, s.width), 4));
  const auto word = [&](int64_t rank, int64_t index) { return std::atomic_ref<int32_t>(reinterpret_cast<int32_t*>(ranks.control[static_cast<size_t>(rank)].data)[index]); };
  const Isa isa = Isa::plain;
  std::string failures[3];
  ranks.onThreads(1, [&](int64_t r, ThreadPool& pool) {
    if (r == 2) {  // never comes
      const auto begin = std::chrono::steady_clock::now();
      while (word(0, 1).load() == 0 && std::chrono::steady_clock::now() - begin < std::chrono::seconds(10)) std::this_thread::sleep_for(std::chrono::milliseconds(5));
      failures[2] = std::to_string(word(0, 1).load());
      return ranks.giveUp();
    }
    try {
      runOn(pool, isa, "ep_dispatch", ranks.dispatchArgs(r, programs[static_cast<size_t>(r)]));
    } catch (const Error& error) {
      failures[r] = error.code() + ": " + error.what();
    }
  });
  for (int64_t r = 0; r < 2; ++r) t.expect(failures[r] == "COMM_ERROR: the exchange was given up while waiting for rank 2", "rank " + std::to_string(r) + " gives up: " + failures[r]);
  t.expect(failures[2] == "3" && word(0, 1).load() == 0, "it says that it waits for rank 2, and that it does no more");

  for (int64_t r = 0; r < s.ranks; ++r) word(r, 0).store(0);
  ThreadPool pool(1);
  runOn(pool, isa, "ep_dispatch", ranks.dispatchArgs(2, programs[2]));  // now all rows are there
  runOn(pool, isa, "ep_dispatch", ranks.dispatchArgs(0, programs[0]));
  runOn(pool, isa, "moe_experts", ranks.expertsArgs(0, programs[0]));
  word(0, 0).store(1);
  t.expectThrows("a wait for sums that is given up", "COMM_ERROR", "waiting for rank 1", [&] { runOn(pool, isa, "ep_combine", ranks.combineArgs(0, programs[0])); });
  t.expect(*reinterpret_cast<int64_t*>(ranks.epoch[0].data) == 0, "an exchange that was given up has not ended");
}

LONGCAT_TEST(ep_dispatch) {
  const ExchangeSizes s{2, 6, 8, 4, 2, 4, 0};
  const Ranks ranks(t, s, randomExperts(t, DType::f32, s.experts, s.width, s.ffn));
  const Tokens tokens = tokensOf(t, randomChoices(t, 4, s.topK, 2), s.topK, s.width);  // all to rank 0
  const RankProgram large = ranks.program(1, tokens, 6), small = ranks.program(0, tokensOf(t, {}, s.topK, s.width), 3);
  std::string failure;
  ranks.onThreads(1, [&](int64_t r, ThreadPool& pool) {
    try {
      runOn(pool, Isa::plain, "ep_dispatch", ranks.dispatchArgs(r, r == 0 ? small : large));
    } catch (const Error& error) {
      failure = error.code() + ": " + error.what();
    }
  });
  t.expect(failure == "COMM_ERROR: rank 1 sent 4 rows to a program of 3: the ranks do not run the same program", "ranks of different programs: " + failure);

  ThreadPool pool(1);
  const auto refused = [&](const std::string& what, const std::string& words, const std::function<void(OpArgs&)>& change) {
    OpArgs arguments = ranks.dispatchArgs(1, large);
    change(arguments);
    t.expectThrows(what, "INTERNAL", words, [&] { runOn(pool, Isa::plain, "ep_dispatch", arguments); });
  };
  Tensor shortWindow = ranks.window[1], elsewhere = t.f32({12, 8});
  shortWindow.shape[0] = static_cast<int64_t>(s.layout().bytes) - 1;
  refused("a window that is too small", "ep_dispatch: window must have " + std::to_string(s.layout().bytes) + " bytes", [&](OpArgs& a) { a.tensor[5] = &shortWindow; });
  refused("rows that are not the window's", "ep_dispatch: received must be the window's own rows", [&](OpArgs& a) { a.tensor[8] = &elsewhere; });
  refused("a rank beyond the last", "ep_dispatch: rank must be a whole number from 0 to 1", [](OpArgs& a) { a.scalar[0] = 2; });
  refused("experts that cannot be shared out", "5 experts cannot be shared out evenly among 2 ranks", [](OpArgs& a) { a.scalar[1] = 5; });
  refused("a window for fewer tokens", "ep_dispatch: window_tokens must be a whole number from 6", [](OpArgs& a) { a.scalar[2] = 5; });
}
