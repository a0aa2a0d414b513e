// Exchanges between GPUs (ep_dispatch, ep_combine) against their definition, bit by bit: ranks in one process, on all GPUs that there are.
#include <algorithm>
#include <chrono>
#include <cstring>
#include <string>

#include "comm/packed_rows.h"
#include "cuda/tests/exchange_ranks.h"
#include "ops/exchange_test.h"
#include "ops/harness_cuda.h"
#include "runtime/float_formats.h"

using namespace longcat;
using namespace longcat::reference;

namespace {

/// Numbers as a rank stores them, and back.
float rounded(DType activation, float v) { return activation == DType::bf16 ? floatOfBf16(bf16OfFloat(v)) : v; }
std::vector<std::byte> stored(DType activation, const std::vector<float>& values) {
  std::vector<std::byte> bytes(values.size() * bytesOf(activation));
  for (size_t i = 0; i < values.size(); ++i) {
    const uint16_t half = bf16OfFloat(values[i]);
    std::memcpy(bytes.data() + i * bytesOf(activation), activation == DType::bf16 ? static_cast<const void*>(&half) : &values[i], bytesOf(activation));
  }
  return bytes;
}
std::vector<float> floatsOf(const GpuRank& rank, const Tensor& t) {
  if (t.dtype == DType::f32) return rank.read<float>(t);
  std::vector<float> values;
  for (uint16_t half : rank.read<uint16_t>(t)) values.push_back(floatOfBf16(half));
  return values;
}

/// One exchange: each rank's tokens, and what its experts make of any plan entry.
struct Step {
  std::vector<Tokens> tokens;
  std::vector<std::vector<float>> products;  // of rank r: [R·T·K', width]
};

/// Where a token's row is at rank `rank`, and its experts there.
struct Sent {
  int32_t place = -1;
  std::vector<int32_t> experts;
  std::vector<float> weights;
};

/// What an exchange is to do, in the plainest words.
class Expected {
 public:
  Expected(const GpuExchange& s, const Step& step, int64_t capacity) : s_(s), step_(step), capacity_(capacity), sent_(static_cast<size_t>(s.ranks)) {
    for (size_t from = 0; from < sent_.size(); ++from) {
      const Tokens& tokens = step.tokens[from];
      std::vector<int32_t> next(sent_.size());
      for (size_t t = 0; t < tokens.ids.size(); ++t) {
        std::vector<Sent>& row = sent_[from].emplace_back(sent_.size());
        for (size_t k = 0; k < tokens.ids[t].size(); ++k) {
          const int64_t id = tokens.ids[t][k], r = id / s.localExperts();
          if (r >= s.ranks) continue;
          Sent& there = row[static_cast<size_t>(r)];
          if (there.place < 0) there.place = next[static_cast<size_t>(r)]++;
          there.experts.push_back(static_cast<int32_t>(id % s.localExperts()));
          there.weights.push_back(tokens.weights[t * tokens.ids[t].size() + k]);
        }
      }
    }
  }

  const Sent& sent(int64_t from, int64_t token, int64_t to) const { return sent_[static_cast<size_t>(from)][static_cast<size_t>(token)][static_cast<size_t>(to)]; }
  int64_t tokensOf(int64_t rank) const { return static_cast<int64_t>(sent_[static_cast<size_t>(rank)].size()); }

  /// f(from, token, what was sent) for each row that rank `to` receives, in order.
  template <class F>
  void forReceived(int64_t to, const F& f) const {
    for (int64_t from = 0; from < s_.ranks; ++from) {
      for (int64_t t = 0; t < tokensOf(from); ++t) {
        if (sent(from, t, to).place >= 0) f(from, t, sent(from, t, to));
      }
    }
  }

  struct Plan {
    std::vector<int32_t> start, row, slots;  // slots: of received rows alone, in their order
  };
  Plan planOf(int64_t to, int64_t receivedStride) const {
    Plan plan{{0}, {}, {}};
    std::vector<std::vector<int32_t>> rows(static_cast<size_t>(s_.localExperts()));
    forReceived(to, [&](int64_t from, int64_t, const Sent& sent) {
      for (int32_t e : sent.experts) rows[static_cast<size_t>(e)].push_back(static_cast<int32_t>(from * receivedStride + sent.place));
    });
    for (const auto& of : rows) {
      plan.row.insert(plan.row.end(), of.begin(), of.end());
      plan.start.push_back(static_cast<int32_t>(plan.row.size()));
    }
    forReceived(to, [&](int64_t from, int64_t, const Sent& sent) {
      for (int64_t slot = 0; slot < s_.slots(); ++slot) {
        if (slot >= static_cast<int64_t>(sent.experts.size())) {
          plan.slots.push_back(-1);
          continue;
        }
        const auto e = static_cast<size_t>(sent.experts[static_cast<size_t>(slot)]);
        const auto place = std::find(rows[e].begin(), rows[e].end(), static_cast<int32_t>(from * receivedStride + sent.place)) - rows[e].begin();
        plan.slots.push_back(plan.start[e] + static_cast<int32_t>(place));
      }
    });
    return plan;
  }

  /// The numbers of a token's row as they arrive.
  std::vector<float> arrived(int64_t from, int64_t token) const {
    const Tokens& tokens = step_.tokens[static_cast<size_t>(from)];
    std::vector<float> row(tokens.h.begin() + token * s_.width, tokens.h.begin() + (token + 1) * s_.width);
    if (!s_.fp8) return row;
    std::vector<uint8_t> codes(row.size());
    std::vector<float> scales(static_cast<size_t>(fp8Blocks(s_.width)));
    packRow(row.data(), s_.width, codes.data(), scales.data());
    for (size_t k = 0; k < row.size(); ++k) row[k] = rounded(s_.activation, floatOfE4m3(codes[k]) * scales[k / kFp8Block]);
    return row;
  }

  /// Rank `rank`'s output, of all its tokens. `plans`: of all ranks.
  std::vector<float> out(int64_t rank, const std::vector<Plan>& plans) const {
    std::vector<float> all;
    const Tokens& tokens = step_.tokens[static_cast<size_t>(rank)];
    for (int64_t t = 0; t < tokensOf(rank); ++t) {
      float identity = 0;
      for (int64_t k = 0; k < s_.topK; ++k) identity += tokens.ids[static_cast<size_t>(t)][static_cast<size_t>(k)] >= s_.experts ? tokens.weights[static_cast<size_t>(t * s_.topK + k)] : 0.0f;
      std::vector<std::vector<float>> sums;
      for (int64_t e = 0; e < s_.ranks; ++e) {
        if (sent(rank, t, e).place >= 0) sums.push_back(sumAt(e, rank, t, plans[static_cast<size_t>(e)]));
      }
      for (int64_t k = 0; k < s_.width; ++k) {
        float total = sums.empty() ? 0.0f : sums[0][static_cast<size_t>(k)];
        for (size_t e = 1; e < sums.size(); ++e) total += sums[e][static_cast<size_t>(k)];
        const float h = tokens.h[static_cast<size_t>(t * s_.width + k)];
        if (identity != 0.0f) total = sums.empty() ? identity * h : std::fma(identity, h, total);
        all.push_back(rounded(s_.activation, total));
      }
    }
    return all;
  }

 private:
  std::vector<float> sumAt(int64_t e, int64_t rank, int64_t token, const Plan& plan) const {
    int64_t before = 0;  // rows that rank e received ahead of it
    bool found = false;
    forReceived(e, [&](int64_t from, int64_t t, const Sent&) {
      found = found || (from == rank && t == token);
      before += !found;
    });
    const Sent& row = sent(rank, token, e);
    std::vector<float> sum;
    for (int64_t k = 0; k < s_.width; ++k) {
      float total = 0;
      for (size_t slot = 0; slot < row.experts.size(); ++slot) {
        const int64_t entry = plan.slots[static_cast<size_t>(before * s_.slots()) + slot];
        const float product = step_.products[static_cast<size_t>(e)][static_cast<size_t>(entry * s_.width + k)];
        total = slot == 0 ? row.weights[0] * product : std::fma(row.weights[slot], product, total);
      }
      sum.push_back(rounded(s_.activation, total));
    }
    return sum;
  }

  const GpuExchange& s_;
  const Step& step_;
  int64_t capacity_;
  std::vector<std::vector<std::vector<Sent>>> sent_;  // [from][token][to]
};

std::string name(const GpuExchange& s) {
  return std::to_string(s.ranks) + " ranks, " + std::to_string(s.topK) + " of " + std::to_string(s.experts) + " experts, width " + std::to_string(s.width) + " of " + nameOf(s.activation) + (s.fp8 ? ", FP8" : "");
}

Tokens roundedTokens(TestContext& t, const GpuExchange& s, int64_t rows, int32_t zeros) {
  Tokens tokens = tokensOf(t, randomChoices(t, rows, s.topK, static_cast<int32_t>(s.experts) + zeros), s.topK, s.width);
  for (float& v : tokens.h) v = rounded(s.activation, v);
  return tokens;
}

/// Random tokens, rows[r] of rank r, and random products.
Step randomStep(TestContext& t, const GpuExchange& s, const std::vector<int64_t>& rows, int64_t capacity, int32_t zeros) {
  Step step;
  for (int64_t r = 0; r < s.ranks; ++r) {
    step.tokens.push_back(roundedTokens(t, s, rows[static_cast<size_t>(r)], zeros));
    step.products.push_back(t.randomFloats(s.ranks * capacity * s.slots() * s.width, -2, 2));
    for (float& v : step.products.back()) v = rounded(s.activation, v);
  }
  return step;
}

/// A rank's part of a step, in the device's memory.
void place(const GpuRank& rank, const GpuProgram& p, const Step& step) {
  const GpuExchange& s = rank.sizes;
  const Tokens& tokens = step.tokens[static_cast<size_t>(rank.rank)];
  const auto padded = [&](std::vector<float> values, int64_t width) { return values.resize(static_cast<size_t>(p.capacity * width), NAN), values; };
  std::vector<int32_t> ids;
  std::vector<float> identity;
  for (size_t t = 0; t < tokens.ids.size(); ++t) {
    float sum = 0;
    for (size_t k = 0; k < tokens.ids[t].size(); ++k) sum += tokens.ids[t][k] >= s.experts ? tokens.weights[t * tokens.ids[t].size() + k] : 0.0f;
    ids.insert(ids.end(), tokens.ids[t].begin(), tokens.ids[t].end());
    identity.push_back(sum);
  }
  ids.resize(static_cast<size_t>(p.capacity * s.topK), 1 << 30);
  const auto rows = static_cast<int32_t>(tokens.ids.size());
  rank.write(p.h, stored(s.activation, padded(tokens.h, s.width)).data());
  rank.write(p.ids, ids.data());
  rank.write(p.weights, padded(tokens.weights, s.topK).data());
  rank.write(p.identity, padded(identity, 1).data());
  rank.write(p.rows, &rows);
  rank.write(p.partial, stored(s.activation, step.products[static_cast<size_t>(rank.rank)]).data());
}

void expectStep(TestContext& t, const std::string& what, const GpuRanks& ranks, const std::vector<GpuProgram>& programs, const Step& step) {
  const GpuExchange& s = ranks[0].sizes;
  const int64_t capacity = programs[0].capacity, stride = programs[0].received.shape[0] / s.ranks;
  const Expected expected(s, step, capacity);
  std::vector<Expected::Plan> plans;
  for (int64_t r = 0; r < s.ranks; ++r) plans.push_back(expected.planOf(r, stride));
  for (int64_t r = 0; r < s.ranks; ++r) {
    const GpuRank& rank = ranks[r];
    const GpuProgram& p = programs[static_cast<size_t>(r)];
    const Expected::Plan& plan = plans[static_cast<size_t>(r)];
    const std::string at = what + ", rank " + std::to_string(r);
    t.expectSame(at + ": expert_start", rank.read<int32_t>(p.expertStart), plan.start);
    std::vector<int32_t> planRow = rank.read<int32_t>(p.planRow), sendSlot = rank.read<int32_t>(p.sendSlot);
    planRow.resize(plan.row.size());
    t.expectSame(at + ": plan_row", planRow, plan.row);
    const std::vector<int32_t> slotPlan = rank.read<int32_t>(p.slotPlan);
    const std::vector<float> received = floatsOf(rank, p.received);
    std::vector<int32_t> slots;
    std::vector<float> rows, wanted;
    expected.forReceived(r, [&](int64_t from, int64_t token, const Sent& sent) {
      const auto slot = slotPlan.begin() + (from * capacity + sent.place) * s.slots();
      slots.insert(slots.end(), slot, slot + s.slots());
      const auto row = received.begin() + (from * stride + sent.place) * s.width;
      rows.insert(rows.end(), row, row + s.width);
      const std::vector<float> arrived = expected.arrived(from, token);
      wanted.insert(wanted.end(), arrived.begin(), arrived.end());
    });
    t.expectSame(at + ": slot_plan", slots, plan.slots);
    t.expectSameBits(at + ": rows", rows, wanted);
    std::vector<int32_t> places;
    for (int64_t token = 0; token < expected.tokensOf(r); ++token) {
      for (int64_t to = 0; to < s.ranks; ++to) places.push_back(expected.sent(r, token, to).place);
    }
    sendSlot.resize(places.size());
    t.expectSame(at + ": send_slot", sendSlot, places);
    std::vector<float> out = floatsOf(rank, p.out);
    out.resize(static_cast<size_t>(expected.tokensOf(r) * s.width));
    t.expectSameBits(at + ": out", out, expected.out(r, plans));
  }
}

/// The sizes whose kernels may all wait on one GPU at the same time. With many experts a plan takes several passes; rows of over 6 KB go in two stretches.
std::vector<GpuExchange> sizesToTry() {
  return {{1, 20, 96, 4, 6}, {2, 40, 128, 6, 24}, {2, 600, 24, 3, 8}, {4, 30, 200, 8, 16}, {7, 24, 256, 5, 14}, {2, 9, 7, 3, 4}, {3, 50, 1160, 12, 24}, {2, 500, 16, 4, 2400}, {2, 40, 3104, 12, 24}};
}

std::vector<DType> activationsOf(TestContext& t) {
  std::vector<DType> dtypes;
  for (Isa isa : t.isas()) {
    if (isGpu(isa)) dtypes.push_back(isa == Isa::cuda ? DType::f32 : DType::bf16);
  }
  return dtypes;
}

}  // namespace

// Random routing, ranks without tokens, none at all: eager and captured, in programs of different capacities over the same windows.
LONGCAT_TEST(exchange) {
  for (DType activation : activationsOf(t)) {
    for (GpuExchange s : sizesToTry()) {
      for (const bool fp8 : {false, true}) {
        s.activation = activation, s.fp8 = fp8;
        const GpuRanks ranks(s);
        for (const int64_t capacity : {s.windowTokens, int64_t{3}, (s.windowTokens + 1) / 2}) {
          std::vector<GpuProgram> programs;
          for (int64_t r = 0; r < s.ranks; ++r) programs.push_back(ranks[r].program(capacity));
          for (int n = 0; n < 4; ++n) {
            std::vector<int64_t> rows;
            for (int64_t r = 0; r < s.ranks; ++r) rows.push_back(n == 0 ? capacity : n == 1 ? 0 : n == 2 ? (r == s.ranks - 1) : t.randomInteger(capacity + 1));
            const Step step = randomStep(t, s, rows, capacity, static_cast<int32_t>(s.experts / 2));
            for (int64_t r = 0; r < s.ranks; ++r) place(ranks[r], programs[static_cast<size_t>(r)], step), ranks[r].poison(programs[static_cast<size_t>(r)]);
            std::vector<cudaGraphExec_t> graphs;
            for (int64_t r = 0; r < s.ranks; ++r) {
              const GpuProgram& p = programs[static_cast<size_t>(r)];
              const auto both = [&] { ranks[r].dispatch(p), ranks[r].combine(p); };
              if (n % 2 == 0) both();
              else graphs.push_back(ranks[r].capture(both));
            }
            for (size_t r = 0; r < graphs.size(); ++r) ranks[static_cast<int64_t>(r)].replay(graphs[r]);
            ranks.wait();
            for (cudaGraphExec_t graph : graphs) cudaGraphExecDestroy(graph);
            expectStep(t, name(s) + ", program of " + std::to_string(capacity) + ", step " + std::to_string(n), ranks, programs, step);
          }
        }
      }
    }
  }
}

// Many rows: each thread of combine sends and adds up several octets; each block of dispatch carries more rows than it has threads.
LONGCAT_TEST(exchange) {
  for (DType activation : activationsOf(t)) {
    for (GpuExchange s : {GpuExchange{2, 400, 3072, 6, 32}, GpuExchange{2, 2600, 8, 3, 8}}) {
      for (const bool fp8 : {false, true}) {
        s.activation = activation, s.fp8 = fp8;
        const GpuRanks ranks(s);
        std::vector<GpuProgram> programs;
        for (int64_t r = 0; r < s.ranks; ++r) programs.push_back(ranks[r].program(s.windowTokens));
        for (int n = 0; n < 2; ++n) {
          const Step step = randomStep(t, s, {s.windowTokens, 257}, s.windowTokens, 8);
          for (int64_t r = 0; r < s.ranks; ++r) place(ranks[r], programs[static_cast<size_t>(r)], step);
          for (int64_t r = 0; r < s.ranks; ++r) ranks[r].dispatch(programs[static_cast<size_t>(r)]), ranks[r].combine(programs[static_cast<size_t>(r)]);
          ranks.wait();
          expectStep(t, name(s) + ", step " + std::to_string(n), ranks, programs, step);
        }
      }
    }
  }
}

// A thousand replays in a row with other tokens each time, the ranks at their own pace: nothing that a slower rank still needs is written over.
LONGCAT_TEST(exchange) {
  for (DType activation : activationsOf(t)) {
    for (GpuExchange s : {GpuExchange{2, 24, 512, 6, 16}, GpuExchange{4, 24, 256, 6, 16}}) {
      s.activation = activation;
      const GpuRanks ranks(s);
      constexpr size_t kSteps = 8, kReplays = 1000;
      const int64_t capacity = s.windowTokens;
      std::vector<Step> steps;
      std::vector<std::vector<GpuProgram>> sources(kSteps);
      std::vector<GpuProgram> programs;
      const Step products = randomStep(t, s, std::vector<int64_t>(static_cast<size_t>(s.ranks)), capacity, 4);
      for (int64_t r = 0; r < s.ranks; ++r) programs.push_back(ranks[r].program(capacity));
      std::vector<std::vector<std::vector<float>>> wanted(kSteps);
      for (size_t n = 0; n < kSteps; ++n) {
        std::vector<int64_t> rows;
        for (int64_t r = 0; r < s.ranks; ++r) rows.push_back(t.randomInteger(capacity + 1));
        steps.push_back(randomStep(t, s, rows, capacity, 4));
        steps[n].products = products.products;
        const Expected expected(s, steps[n], capacity);
        std::vector<Expected::Plan> plans;
        for (int64_t r = 0; r < s.ranks; ++r) plans.push_back(expected.planOf(r, s.windowTokens));
        for (int64_t r = 0; r < s.ranks; ++r) {
          sources[n].push_back(ranks[r].program(capacity));
          place(ranks[r], sources[n].back(), steps[n]);
          wanted[n].push_back(expected.out(r, plans));
        }
      }
      std::vector<cudaGraphExec_t> graphs;
      std::vector<Tensor> outs;  // of all replays
      for (int64_t r = 0; r < s.ranks; ++r) {
        place(ranks[r], programs[static_cast<size_t>(r)], steps[0]);
        graphs.push_back(ranks[r].capture([&] { ranks[r].dispatch(programs[static_cast<size_t>(r)]), ranks[r].combine(programs[static_cast<size_t>(r)]); }));
        outs.push_back(ranks[r].tensor(activation, {static_cast<int64_t>(kReplays) * capacity, s.width}));
      }
      const auto copy = [](const GpuRank& rank, std::byte* to, const Tensor& from) {
        LONGCAT_CUDA(cudaMemcpyAsync(to, from.data, static_cast<size_t>(from.elements()) * bytesOf(from.dtype), cudaMemcpyDeviceToDevice, rank.context.stream));
      };
      for (size_t n = 0; n < kReplays; ++n) {
        for (int64_t r = 0; r < s.ranks; ++r) {
          const GpuRank& rank = ranks[r];
          const GpuProgram &from = sources[n % kSteps][static_cast<size_t>(r)], &to = programs[static_cast<size_t>(r)];
          rank.select();
          copy(rank, to.h.data, from.h), copy(rank, to.ids.data, from.ids), copy(rank, to.weights.data, from.weights);
          copy(rank, to.identity.data, from.identity), copy(rank, to.rows.data, from.rows);
          rank.replay(graphs[static_cast<size_t>(r)]);
          copy(rank, outs[static_cast<size_t>(r)].data + n * static_cast<size_t>(to.out.elements()) * bytesOf(activation), to.out);
        }
      }
      ranks.wait();
      for (cudaGraphExec_t graph : graphs) cudaGraphExecDestroy(graph);
      for (int64_t r = 0; r < s.ranks; ++r) {
        const std::vector<float> all = floatsOf(ranks[r], outs[static_cast<size_t>(r)]);
        size_t wrong = 0;
        for (size_t n = 0; n < kReplays; ++n) {
          const std::vector<float>& want = wanted[n % kSteps][static_cast<size_t>(r)];
          wrong += std::memcmp(all.data() + n * static_cast<size_t>(capacity * s.width), want.data(), want.size() * sizeof(float)) != 0;
        }
        t.expect(wrong == 0, name(s) + ": " + std::to_string(wrong) + " of a thousand replays at rank " + std::to_string(r) + " differ");
        t.expect(ranks[r].read<int64_t>(ranks[r].epoch)[0] == static_cast<int64_t>(kReplays), "each replay is an exchange");
      }
    }
  }
}

// A rank that others leave alone says for whom it waits, and gives up when it is told to; what follows then has a plan of nothing.
LONGCAT_TEST(exchange) {
  if (activationsOf(t).empty()) return;
  GpuExchange s{3, 8, 64, 4, 6};
  s.activation = activationsOf(t)[0];
  const GpuRanks ranks(s);
  std::vector<GpuProgram> programs;
  for (int64_t r = 0; r < s.ranks; ++r) programs.push_back(ranks[r].program(8));
  const Step step = randomStep(t, s, {8, 8, 8}, 8, 2);
  for (int64_t r = 0; r < s.ranks; ++r) place(ranks[r], programs[static_cast<size_t>(r)], step), ranks[r].poison(programs[static_cast<size_t>(r)]);
  for (int64_t r : {0, 1}) ranks[r].dispatch(programs[static_cast<size_t>(r)]), ranks[r].combine(programs[static_cast<size_t>(r)]);
  const auto begin = std::chrono::steady_clock::now();
  while (ranks[0].word(1) == 0 && std::chrono::steady_clock::now() - begin < std::chrono::seconds(5)) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  const auto waited = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  t.expect(ranks[0].word(1) == 3, "it waits for rank 2: word is " + std::to_string(ranks[0].word(1)));
  t.expect(waited > 0.9 && waited < 3, "it says so after a second: " + std::to_string(waited));
  const auto told = std::chrono::steady_clock::now();
  for (int64_t r = 0; r < s.ranks; ++r) ranks[r].word(0) = 1;
  ranks.wait();
  t.expect(std::chrono::steady_clock::now() - told < std::chrono::seconds(1), "it gives up within a second");
  t.expect(ranks[0].word(1) == 0, "it waits no more");
  for (int64_t r : {0, 1}) {
    const GpuProgram& p = programs[static_cast<size_t>(r)];
    t.expectSame("a plan without entries", ranks[r].read<int32_t>(p.expertStart), std::vector<int32_t>(3, 0));
    t.expectSame("rows without entries", ranks[r].read<int32_t>(p.slotPlan), std::vector<int32_t>(static_cast<size_t>(p.slotPlan.elements()), -1));
    t.expect(ranks[r].read<int64_t>(ranks[r].epoch)[0] == 0, "the exchange has not ended");
  }
}
