// ep_dispatch: the first half of an exchange between ranks that hold different experts. Rank r of R holds experts [r·L, (r+1)·L).
//   Each row goes once to every rank that holds one of its experts, in ascending rows; zero experts (id ≥ R·L) send nothing. Every rank is told
//   how many come, none too. When all have sent, the rows that came are planned by expert, as moe_route plans a single rank's.
// Works on exchange *epoch + 1, which ep_combine ends. comm/window.h says what is written where, and why once is enough.
// With FP8 a row travels as e4m3 codes of each 128 numbers and their scale, by the rule of docs/numerics.md, 7.
#pragma once
#include "comm/window.h"
#include "ops/activation.h"
namespace longcat {

// tensors: h, ids, weights, rows, windows, window, epoch, control, received, send_slot, expert_start, plan_row, slot_plan, outbox?, counts?
// scalars: rank, experts, window_tokens, fp8
struct EpDispatchParams {
  ConstActivations h;          // [T, width] contiguous
  const int32_t* ids;          // [T, K] chosen experts, ascending, as moe_route leaves them
  const float* weights;        // [T, K] theirs
  const int32_t* rows;         // [1]
  const int64_t* windows;      // [R] address of each rank's window, as this rank sees it
  std::byte* window;           // the own one, of `layout`
  const int64_t* epoch;        // [1] exchanges that have ended
  int32_t* control;            // [16] in host memory. [0]: not 0, give up. [1]: this rank waits for rank [1] - 1, for over a second
  Activations received;        // [R·receivedStride, width] row s·receivedStride + j: the j-th that rank s sent. The window's own rows,
                               //   where `receivedStride` is windowTokens; with FP8 what they stand for, in memory of its own
  int32_t* sendSlot;           // [T, R] which of the rows sent to rank r this row is; -1: not sent
  int32_t* expertStart;        // [L+1] plan entries of local expert e are [expertStart[e], expertStart[e+1])
  int32_t* planRow;            // [R·T·K'] row of `received` of each plan entry, ascending within an expert
  int32_t* slotPlan;           // [R·T, K'] row s·T + j: plan entries of the j-th row from rank s, its experts ascending, -1 behind them
  NcclWay nccl;                // with an outbox through NCCL, and `windows` is not looked at
  WindowLayout layout;
  int64_t capacity, width, topK;
  int64_t ranks, rank;         // R; which one this is
  int64_t localExperts;        // L
  int64_t slots;               // K' = min(K, L)
  int64_t windowTokens;        // rows of a source's part of a window, at least T
  int64_t receivedStride;
  bool fp8;
  DType activation;
};

}  // namespace longcat
