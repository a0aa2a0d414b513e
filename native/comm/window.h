// A window: memory of one rank into which the other ranks of an exchange write. What lies where in it, the same on every rank; pure.
//
//   header      flags: one line for each source of rows, one for each source of sums
//   rows        [ranks · tokens, width]   row s · tokens + j: the j-th row that rank s sent here; activations, or e4m3 codes with FP8
//   scales      [ranks · tokens, ⌈width / 128⌉] float32, with FP8 alone: of each 128 codes
//   ids         [ranks · tokens, slots] int32: the row's experts among this rank's own, ascending, -1 behind them. Between GPUs they travel as
//               numbers from 1 on, and all are zeros between exchanges (ops/ep_dispatch/plan.cuh)
//   weights     [ranks · tokens, slots] float32: theirs
//   sums        [ranks · tokens, width]   row e · tokens + j: what rank e's experts make of the j-th row sent to it; activations. Between
//               exchanges of GPUs all are zeros (ops/ep_combine/arrivals.cuh)
//
// Nothing is kept twice, because every rank sends to every rank in each exchange, if only a count of zero:
//   - rank s writes the rows, ids, weights and count of exchange n + 1 into r's window once it has r's sums of n, and r sends those when it
//     has read all that s sent for n;
//   - rank e writes sums of n + 1 into s's window once it has s's rows of n + 1, and s sends those when it has read all sums of n.
// The argument is about one pair of ranks at a time: a third may still be reading what others sent. So a place belongs to one source for ever,
// and `tokens` is the window's, whatever the capacity of the program that runs.
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/anywhere.h"
#include "runtime/dtype.h"

namespace longcat {

constexpr int64_t kMaxRanks = 256;
constexpr int64_t kControlWords = 16;      // of an exchange: host memory through which it is told to give up, and tells for whom it waits
constexpr size_t kWindowHeaderBytes = size_t{64} << 10;
constexpr size_t kWindowLineBytes = 128;   // a flag has a cache line of its own, and the one that is fetched along
constexpr size_t kWindowAlignment = 256;   // of every region

/// A line of the header. `epoch` tells for which exchange its writer is done: its number's low half (comm/flags.h), or what GPUs make of it
/// (cuda/exchange.cuh). It is written last, after `count`, the rows that came (a line of sums leaves it alone).
struct WindowFlag {
  uint32_t epoch;
  int32_t count;
};

/// Bytes from the window's start to the flag that `source` raises when its rows are there.
LONGCAT_ANYWHERE constexpr size_t rowsFlagOffset(int64_t source) { return static_cast<size_t>(source) * kWindowLineBytes; }
/// Bytes to the flag that `source` raises when its sums are there.
LONGCAT_ANYWHERE constexpr size_t sumsFlagOffset(int64_t source) { return static_cast<size_t>(kMaxRanks + source) * kWindowLineBytes; }
static_assert(sumsFlagOffset(kMaxRanks) <= kWindowHeaderBytes);

/// What all ranks of an exchange agree on.
struct WindowShape {
  int64_t ranks;
  int64_t tokens;     // most rows that one rank sends to another in an exchange
  int64_t width;      // numbers of a row
  int64_t slots;      // most experts of one rank that a row may use
  DType activation;
  bool fp8;           // rows travel as e4m3 codes
};

/// Where each region begins, in bytes from the window's start, and where the last one ends.
struct WindowLayout {
  size_t rows, scales, ids, weights, sums, bytes;
};

static inline WindowLayout windowLayout(const WindowShape& w) {
  WindowLayout at{};
  size_t end = kWindowHeaderBytes;
  const auto region = [&](int64_t rowBytes) {
    const size_t begin = end;
    end += static_cast<size_t>(w.ranks * w.tokens * rowBytes);
    end = (end + kWindowAlignment - 1) / kWindowAlignment * kWindowAlignment;
    return begin;
  };
  const auto activation = static_cast<int64_t>(bytesOf(w.activation));
  at.rows = region(w.width * (w.fp8 ? 1 : activation));
  at.scales = region(w.fp8 ? fp8Blocks(w.width) * 4 : 0);
  at.ids = region(w.slots * 4);
  at.weights = region(w.slots * 4);
  at.sums = region(w.width * activation);
  at.bytes = end;
  return at;
}

/// How an exchange goes through NCCL, where ranks cannot write into each other's windows: what another rank is to get lies in the outbox, a second
/// window of this rank's, in which each place belongs to the rank that it is for; NCCL carries it to this rank's place in that one's window.
struct NcclWay {
  std::byte* outbox;  // null: not through NCCL
  /// [2R] in host memory, or null. Null: as many rows travel between two ranks as the program has room for, so that the exchange can be captured.
  /// Otherwise the rows that there are: the host waits until it sees here how many this rank sends to each, then how many come from each.
  int32_t* counts;
};

}  // namespace longcat
