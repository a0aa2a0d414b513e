// What the benches of ep_dispatch and ep_combine share: one rank of an exchange whose flags are all raised already, so that it waits for nobody.
#pragma once

#include <cstring>
#include <vector>

#include "comm/window.h"
#include "ops/harness_bench.h"

namespace longcat::bench {

/// Rank 0 of `ranks`, each of which sends it as many rows as it sends itself. All others have one window together: only the writing is timed.
class OneRank {
 public:
  OneRank(BenchContext& b, const ModelShape& m, int64_t ranks, int64_t tokens, bool fp8) : b_(b), model_(m), ranks_(ranks), T_(tokens), fp8_(fp8) {
    const int64_t D = m.hidden, entries = ranks * T_ * slots();
    const WindowLayout at = layout();
    const auto bytes = static_cast<int64_t>(at.bytes + kWindowAlignment);
    own_ = aligned(b.empty(DType::u8, {bytes})), other_ = aligned(b.empty(DType::u8, {bytes}));
    windows = b.empty(DType::i64, {ranks}), epoch = b.empty(DType::i64, {1}), control = b.i32({kControlWords});
    for (int64_t r = 0; r < ranks; ++r) reinterpret_cast<int64_t*>(windows.data)[r] = reinterpret_cast<int64_t>(r == 0 ? own_.data : other_.data);
    h = b.randomActivations({T_, D}), ids = b.i32({T_, m.topK}, choices()), weights = b.random(DType::f32, {T_, m.topK}, 0, 1);
    identity = b.random(DType::f32, {T_}, 0, 1), rows = b.i32({1}, {static_cast<int32_t>(T_)});
    received = own_;
    if (fp8) received = b.activations({ranks * T_, D});
    else received.dtype = DType::f32, received.rank = 2, received.shape[0] = ranks * T_, received.shape[1] = received.rowStride = D, received.data += at.rows;
    sendSlot = b.i32({T_, ranks}), expertStart = b.i32({m.experts / ranks + 1}), planRow = b.i32({entries}), slotPlan = b.i32({ranks * T_, slots()});
    partial = b.randomActivations({entries, D}), out = b.activations({T_, D});
    raise();
  }

  int64_t slots() const { return std::min(model_.topK, model_.experts / ranks_); }
  WindowLayout layout() const { return windowLayout({ranks_, T_, model_.hidden, slots(), DType::f32, fp8_}); }

  OpArgs dispatchArgs() const {
    return args({&h, &ids, &weights, &rows, &windows, &own_, &epoch, &control, &received, &sendSlot, &expertStart, &planRow, &slotPlan, nullptr, nullptr},
                {0, static_cast<double>(model_.experts), static_cast<double>(T_), fp8_ ? 1.0 : 0.0});
  }
  OpArgs combineArgs() const {
    return args({&partial, &slotPlan, &h, &identity, &sendSlot, &rows, &windows, &own_, &epoch, &control, &out, nullptr, nullptr}, {0, static_cast<double>(T_), fp8_ ? 1.0 : 0.0});
  }

  /// After a dispatch: the other ranks have sent what rank 0 has sent itself. Rows that were sent, rows that came, their experts.
  struct Traffic { double sent = 0, came = 0, experts = 0; };
  Traffic fill() {
    Traffic traffic;
    for (int64_t i = 0; i < T_ * ranks_; ++i) traffic.sent += reinterpret_cast<const int32_t*>(sendSlot.data)[i] >= 0;
    const WindowLayout at = layout();
    const int32_t count = flag(rowsFlagOffset(0)).count;
    const auto part = static_cast<size_t>(T_ * slots()) * 4;
    for (int64_t s = 1; s < ranks_; ++s) {
      flag(rowsFlagOffset(s)).count = count;
      for (size_t region : {at.ids, at.weights}) std::memcpy(own_.data + region + static_cast<size_t>(s) * part, own_.data + region, part);
    }
    traffic.came = static_cast<double>(count * ranks_);
    const auto* came = reinterpret_cast<const int32_t*>(own_.data + at.ids);
    for (int64_t i = 0; i < count * slots(); ++i) traffic.experts += came[i] >= 0 ? static_cast<double>(ranks_) : 0;
    return traffic;
  }

 private:
  WindowFlag& flag(size_t offset) { return *reinterpret_cast<WindowFlag*>(own_.data + offset); }
  /// All flags of others far ahead.
  void raise() {
    for (int64_t s = 1; s < ranks_; ++s) flag(rowsFlagOffset(s)).epoch = flag(sumsFlagOffset(s)).epoch = uint32_t{1} << 30;
  }
  static Tensor aligned(Tensor memory) {
    const size_t beyond = reinterpret_cast<uintptr_t>(memory.data) % kWindowAlignment;
    if (beyond) memory.data += kWindowAlignment - beyond;
    memory.shape[0] -= static_cast<int64_t>(kWindowAlignment);
    return memory;
  }
  /// topK different ids a token, a third of them zero experts.
  std::vector<int32_t> choices() {
    std::vector<int32_t> ids;
    const int64_t zeros = std::min(model_.topK / 3, model_.zeroExperts);
    for (int64_t t = 0; t < T_; ++t) {
      std::vector<int32_t> row;
      while (static_cast<int64_t>(row.size()) < model_.topK - zeros) {
        const auto id = static_cast<int32_t>(b_.randomInteger(model_.experts));
        if (std::find(row.begin(), row.end(), id) == row.end()) row.push_back(id);
      }
      for (int64_t z = 0; z < zeros; ++z) row.push_back(static_cast<int32_t>(model_.experts + z));
      std::sort(row.begin(), row.end());
      ids.insert(ids.end(), row.begin(), row.end());
    }
    return ids;
  }

  BenchContext& b_;
  const ModelShape& model_;
  int64_t ranks_, T_;
  bool fp8_;
  Tensor own_, other_, windows, epoch, control, h, ids, weights, identity, rows, received, sendSlot, expertStart, planRow, slotPlan, partial, out;
};

}  // namespace longcat::bench
