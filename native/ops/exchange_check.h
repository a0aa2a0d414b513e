// What ep_dispatch and ep_combine ask of the arguments that they share.
#pragma once

#include <string>

#include "comm/window.h"
#include "ops/check.h"

namespace longcat {

struct ExchangeArgs {
  const int64_t* windows;
  int64_t ranks, rank, tokens;
};

/// `capacity`: rows of the program; a window holds at least as many of each source.
inline ExchangeArgs exchangeArgs(const ArgCheck& check, int windows, int rank, int windowTokens, int64_t capacity) {
  ExchangeArgs e{};
  e.ranks = check.size(windows, 0);
  check.requireArg(windows, e.ranks >= 1 && e.ranks <= kMaxRanks, "must name 1 to 256 ranks' windows");
  e.windows = check.dense<const int64_t>(windows, DType::i64, {e.ranks});
  e.rank = check.integer(rank, 0, e.ranks - 1);
  e.tokens = check.integer(windowTokens, capacity, INT32_MAX);
  return e;
}

/// The own window, which must be as large as the layout.
inline std::byte* windowArg(const ArgCheck& check, int window, const WindowLayout& layout) {
  auto* data = check.dense<std::byte>(window, DType::u8, {kAnySize});
  check.requireArg(window, check.size(window, 0) >= static_cast<int64_t>(layout.bytes), ("must have " + std::to_string(layout.bytes) + " bytes").c_str());
  check.requireArg(window, reinterpret_cast<uintptr_t>(data) % kWindowAlignment == 0, "must be aligned as its regions are");
  return data;
}

/// What an exchange through NCCL takes besides; none of it otherwise.
inline NcclWay ncclArgs(const ArgCheck& check, int outbox, int counts, int64_t ranks, const WindowLayout& layout, bool onGpu) {
  NcclWay way{};
  if (check.has(outbox)) {
    check.requireArg(outbox, onGpu, "belongs to exchanges between GPUs");
    way.outbox = windowArg(check, outbox, layout);
  }
  way.counts = check.dense<int32_t>(counts, DType::i32, {2 * ranks});
  if (way.counts) check.requireArg(counts, way.outbox, "belongs to exchanges with an outbox");
  return way;
}

}  // namespace longcat
