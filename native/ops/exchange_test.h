// What tests of ep_dispatch and ep_combine share: the ranks of an exchange as threads of one process, each with a window of its own.
#pragma once

#include <chrono>
#include <cstring>
#include <exception>
#include <functional>
#include <thread>
#include <vector>

#include "comm/shared_window.h"
#include "comm/window.h"
#include "ops/experts_test.h"

namespace longcat::reference {

/// Some tokens with their routing, as one rank has them.
struct Tokens {
  std::vector<std::vector<int32_t>> ids;  // [rows][topK], ascending
  std::vector<float> weights;             // [rows, topK]
  std::vector<float> h;                   // [rows, width]
  int64_t rows() const { return static_cast<int64_t>(ids.size()); }

  /// Row r of `of` behind the others.
  void add(const Tokens& of, int64_t r) {
    const auto topK = static_cast<int64_t>(of.ids[0].size()), width = static_cast<int64_t>(of.h.size()) / of.rows();
    ids.push_back(of.ids[static_cast<size_t>(r)]);
    weights.insert(weights.end(), of.weights.begin() + r * topK, of.weights.begin() + (r + 1) * topK);
    h.insert(h.end(), of.h.begin() + r * width, of.h.begin() + (r + 1) * width);
  }
};
inline Tokens tokensOf(OpContext& t, std::vector<std::vector<int32_t>> ids, int64_t topK, int64_t width) {
  const auto rows = static_cast<int64_t>(ids.size());
  return {std::move(ids), t.randomFloats(rows * topK, 0, 0.6f), t.randomFloats(rows * width, -2, 2)};
}

struct ExchangeSizes {
  int64_t ranks, windowTokens, width, ffn, topK;
  int32_t experts, zeros;
  bool fp8 = false;
  int64_t localExperts() const { return experts / ranks; }
  int64_t slots() const { return std::min(topK, localExperts()); }
  WindowLayout layout() const { return windowLayout({ranks, windowTokens, width, slots(), DType::f32, fp8}); }
};

/// One rank's tensors for one exchange, of a program of `capacity` rows.
struct RankProgram {
  Tensor h, ids, weights, identity, rows, received, sendSlot, expertStart, planRow, slotPlan, hidden, partial, out;
};

class Ranks {
 public:
  Ranks(OpContext& t, const ExchangeSizes& sizes, const Experts& all) : sizes(sizes), t_(t) {
    for (int64_t r = 0; r < sizes.ranks; ++r) {
      own_.push_back(createSharedWindow(sizes.layout().bytes, nullptr, handles_.emplace_back()));
      Tensor window = t.empty(DType::u8, {1});
      window.shape[0] = static_cast<int64_t>(own_.back()->bytes());
      window.buffer = own_.back(), window.data = own_.back()->data();
      this->window.push_back(window);
      epoch.push_back(t.empty(DType::i64, {1}));
      control.push_back(t.i32({kControlWords}));
      const auto part = [&](const Tensor& stack) { return partsOf(stack, r * sizes.localExperts(), sizes.localExperts()); };
      experts.push_back({});
      for (auto [from, to] : {std::pair{&all.gate, &experts.back().gate}, {&all.up, &experts.back().up}, {&all.down, &experts.back().down}}) {
        to->fp8 = from->fp8, to->data = part(from->data), to->scale = part(from->scale);
      }
    }
    for (int64_t r = 0; r < sizes.ranks; ++r) {
      const Tensor table = t.empty(DType::i64, {sizes.ranks});
      for (int64_t other = 0; other < sizes.ranks; ++other) {
        if (other != r) opened_.push_back(openSharedWindow(handles_[static_cast<size_t>(other)]));
        reinterpret_cast<int64_t*>(table.data)[other] = reinterpret_cast<int64_t>(other == r ? own_[static_cast<size_t>(r)]->data() : opened_.back()->data());
      }
      windows.push_back(table);
    }
  }

  RankProgram program(int64_t rank, const Tokens& tokens, int64_t capacity) const {
    const auto& s = sizes;
    const int64_t entries = s.ranks * capacity * s.slots();
    const auto padded = [&](std::vector<float> values, int64_t width, float with) { return values.resize(static_cast<size_t>(capacity * width), with), values; };
    std::vector<int32_t> ids;
    for (const auto& row : tokens.ids) ids.insert(ids.end(), row.begin(), row.end());
    ids.resize(static_cast<size_t>(capacity * s.topK), 1 << 30);
    std::vector<float> identity;
    for (int64_t r = 0; r < tokens.rows(); ++r) {
      float sum = 0;
      for (int64_t k = 0; k < s.topK; ++k) sum += tokens.ids[static_cast<size_t>(r)][static_cast<size_t>(k)] >= s.experts ? tokens.weights[static_cast<size_t>(r * s.topK + k)] : 0.0f;
      identity.push_back(sum);
    }
    RankProgram p;
    p.h = t_.f32({capacity, s.width}, padded(tokens.h, s.width, NAN));
    p.ids = t_.i32({capacity, s.topK}, ids);
    p.weights = t_.f32({capacity, s.topK}, padded(tokens.weights, s.topK, NAN));
    p.identity = t_.f32({capacity}, padded(identity, 1, NAN));
    p.rows = t_.i32({1}, {static_cast<int32_t>(tokens.rows())});
    if (s.fp8) p.received = t_.f32({s.ranks * capacity, s.width});
    else p.received = receivedOf(rank);
    p.sendSlot = t_.i32({capacity, s.ranks});
    p.expertStart = t_.i32({s.localExperts() + 1});
    p.planRow = t_.i32({entries});
    p.slotPlan = t_.i32({s.ranks * capacity, s.slots()});
    p.hidden = t_.f32({entries, s.ffn});
    p.partial = t_.f32({entries, s.width});
    p.out = t_.f32({capacity, s.width});
    return p;
  }

  OpArgs dispatchArgs(int64_t rank, const RankProgram& p) const {
    const auto r = static_cast<size_t>(rank);
    return args({&p.h, &p.ids, &p.weights, &p.rows, &windows[r], &window[r], &epoch[r], &control[r], &p.received, &p.sendSlot, &p.expertStart, &p.planRow, &p.slotPlan, nullptr, nullptr},
                {static_cast<double>(rank), static_cast<double>(sizes.experts), static_cast<double>(sizes.windowTokens), sizes.fp8 ? 1.0 : 0.0});
  }
  OpArgs expertsArgs(int64_t rank, const RankProgram& p) const {
    const Experts& e = experts[static_cast<size_t>(rank)];
    return args({&p.received, &e.gate.data, e.gate.scales(), &e.up.data, e.up.scales(), &e.down.data, e.down.scales(), nullptr, nullptr, &p.expertStart, &p.planRow, nullptr,
                 &p.hidden, &p.partial, nullptr, nullptr},
                {static_cast<double>(p.h.elements() / sizes.width * sizes.topK)});
  }
  OpArgs combineArgs(int64_t rank, const RankProgram& p) const {
    const auto r = static_cast<size_t>(rank);
    return args({&p.partial, &p.slotPlan, &p.h, &p.identity, &p.sendSlot, &p.rows, &windows[r], &window[r], &epoch[r], &control[r], &p.out, nullptr, nullptr},
                {static_cast<double>(rank), static_cast<double>(sizes.windowTokens), sizes.fp8 ? 1.0 : 0.0});
  }

  /// f(rank, its pool) on a thread for each rank, all at once. What one throws ends the others' waits, and is thrown here.
  void onThreads(int threads, const std::function<void(int64_t, ThreadPool&)>& f) const {
    std::vector<std::thread> running;
    std::vector<std::exception_ptr> failed(static_cast<size_t>(sizes.ranks));
    for (int64_t r = 0; r < sizes.ranks; ++r) {
      running.emplace_back([&, r] {
        try {
          ThreadPool pool(threads);
          f(r, pool);
        } catch (...) {
          failed[static_cast<size_t>(r)] = std::current_exception();
          giveUp();
        }
      });
    }
    for (std::thread& thread : running) thread.join();
    for (const std::exception_ptr& error : failed) {
      if (error) std::rethrow_exception(error);
    }
  }

  /// Every rank's wait ends.
  void giveUp() const {
    for (const Tensor& words : control) std::atomic_ref<int32_t>(reinterpret_cast<int32_t*>(words.data)[0]).store(1);
  }

  /// Exchanges in a row, each rank at its own pace: step n of rank r has the tokens steps[n][r] and programs of capacities[n] rows. The
  /// outputs, out[n][r] with a row for each token.
  std::vector<std::vector<std::vector<float>>> run(Isa isa, int threads, const std::vector<std::vector<Tokens>>& steps, const std::vector<int64_t>& capacities) const {
    std::vector<std::vector<RankProgram>> programs;
    std::vector<std::vector<int64_t>> delays;
    for (size_t n = 0; n < steps.size(); ++n) {
      programs.emplace_back();
      delays.emplace_back();
      for (int64_t r = 0; r < sizes.ranks; ++r) {
        programs[n].push_back(program(r, steps[n][static_cast<size_t>(r)], capacities[n]));
        delays[n].push_back(t_.randomInteger(4) == 0 ? t_.randomInteger(600) : 0);
      }
    }
    onThreads(threads, [&](int64_t r, ThreadPool& pool) {
      for (size_t n = 0; n < steps.size(); ++n) {
        const RankProgram& p = programs[n][static_cast<size_t>(r)];
        std::this_thread::sleep_for(std::chrono::microseconds(delays[n][static_cast<size_t>(r)]));
        runOn(pool, isa, "ep_dispatch", dispatchArgs(r, p));
        runOn(pool, isa, "moe_experts", expertsArgs(r, p));
        runOn(pool, isa, "ep_combine", combineArgs(r, p));
      }
    });
    std::vector<std::vector<std::vector<float>>> outs(steps.size());
    for (size_t n = 0; n < steps.size(); ++n) {
      for (int64_t r = 0; r < sizes.ranks; ++r) {
        std::vector<float> out = t_.floats(programs[n][static_cast<size_t>(r)].out);
        out.resize(static_cast<size_t>(steps[n][static_cast<size_t>(r)].rows() * sizes.width));
        outs[n].push_back(std::move(out));
      }
    }
    return outs;
  }

  const ExchangeSizes sizes;
  std::vector<Tensor> windows, window, epoch, control;  // by rank
  std::vector<Experts> experts;

 private:
  Tensor receivedOf(int64_t rank) const {
    Tensor rows = window[static_cast<size_t>(rank)];
    rows.dtype = DType::f32;
    rows.rank = 2;
    rows.shape[0] = sizes.ranks * sizes.windowTokens, rows.shape[1] = rows.rowStride = sizes.width;
    rows.data += kWindowHeaderBytes;
    return rows;
  }

  OpContext& t_;
  std::vector<WindowHandle> handles_;
  std::vector<std::shared_ptr<Buffer>> own_, opened_;
};

/// The same tokens by one rank's moe_experts over all experts.
inline std::vector<float> withoutExchange(OpContext& t, Isa isa, const ExchangeSizes& s, const Experts& all, const Tokens& tokens) {
  const int64_t T = tokens.rows();
  if (T == 0) return {};
  const Routing routing = planOf(tokens.ids, tokens.weights, s.experts);
  const Tensor h = t.f32({T, s.width}, tokens.h), weights = t.f32({T, s.topK}, routing.weights), identity = t.f32({T}, routing.identity);
  const Tensor start = t.i32({s.experts + 1}, routing.start), planRow = t.i32({T * s.topK}, routing.planRow), slotPlan = t.i32({T, s.topK}, routing.slotPlan);
  const Tensor rows = t.i32({1}, {static_cast<int32_t>(T)}), hidden = t.f32({T * s.topK, s.ffn}), partial = t.f32({T * s.topK, s.width}), out = t.f32({T, s.width});
  t.run(isa, "moe_experts", args({&h, &all.gate.data, all.gate.scales(), &all.up.data, all.up.scales(), &all.down.data, all.down.scales(), &weights, &identity, &start,
                                  &planRow, &slotPlan, &hidden, &partial, &out, &rows}, {0}));
  return t.floats(out);
}

}  // namespace longcat::reference
