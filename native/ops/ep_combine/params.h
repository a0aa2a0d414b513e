// ep_combine: the second half of an exchange (ep_dispatch is the first). Ranks give back what their experts make of each row, and the row's own
// rank adds that up.
//   sum_e = Σ_{experts of rank e that the row uses, ascending} weight · product        the first a product, then one fused step an expert, in fp32
//   out = sum_first + … + sum_last + identityWeight · h                                over the ranks that it was sent to, ascending; in fp32
// Sums travel as activations. The identity term is the home rank's own, added last in one fused step; zero experts alone: the product.
// So a row's bits depend on the row and on R alone, and with R = 1 on the CPU they are moe_experts' bits.
// Ends the exchange: its last act is to raise `epoch`.
#pragma once
#include "comm/window.h"
#include "ops/activation.h"
namespace longcat {

// tensors: partial, slot_plan, h, identity_weight, send_slot, rows, windows, window, epoch, control, out, outbox?, counts?
// scalars: rank, window_tokens, fp8
struct EpCombineParams {
  ConstActivations partial;      // [R·T·K', width] the experts' products by plan entry, as moe_experts leaves them
  const int32_t* slotPlan;       // [R·T, K'] of ep_dispatch
  ConstActivations h;            // [T, width] contiguous: the rows as they were sent
  const float* identityWeight;   // [T]
  const int32_t* sendSlot;       // [T, R] of ep_dispatch
  const int32_t* rows;           // [1]
  const int64_t* windows;        // [R] address of each rank's window, as this rank sees it
  std::byte* window;             // the own one, of `layout`
  int64_t* epoch;                // [1] exchanges that have ended
  int32_t* control;              // [16] in host memory, as of ep_dispatch
  Activations out;               // [T, width] contiguous
  NcclWay nccl;                  // as of ep_dispatch
  WindowLayout layout;
  int64_t capacity, width;
  int64_t ranks, rank;           // R; which one this is
  int64_t slots;                 // K'
  int64_t windowTokens;          // rows of a source's part of a window, at least T
  DType activation;
};

}  // namespace longcat
