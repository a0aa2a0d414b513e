// ep_combine: its arguments and their checks.
#include "ops/ep_combine/params.h"

#include "ops/check.h"
#include "ops/exchange_check.h"

namespace longcat {
LONGCAT_DECLARE_BODIES(ep_combine)
extern const OpSpec kEpCombineOp;

namespace {

enum Arg {
  kPartial, kSlotPlan, kH, kIdentityWeight, kSendSlot, kRows, kWindows, kWindow, kEpoch, kControl, kOut, kOutbox, kCounts, kNumArgs
};
const TensorArg kTensors[kNumArgs] = {{"partial", Use::in, false, true},
                                      {"slot_plan"},
                                      {"h", Use::in, false, true},
                                      {"identity_weight"},
                                      {"send_slot"},
                                      {"rows"},
                                      {"windows"},
                                      {"window", Use::inout},
                                      {"epoch", Use::inout},
                                      {"control", Use::inout},
                                      {"out", Use::out, false, true},
                                      {"outbox", Use::inout, true},
                                      {"counts", Use::in, true}};
enum ScalarArg { kRank, kWindowTokens, kFp8, kNumScalarArgs };
const char* const kScalars[kNumScalarArgs] = {"rank", "window_tokens", "fp8"};

void prepare(const OpArgs& args, void* storage) {
  const ArgCheck check(kEpCombineOp, args);
  auto& p = paramsAt<EpCombineParams>(storage);
  p.capacity = check.size(kH, 0);
  p.width = check.size(kH, 1);
  p.slots = check.size(kSlotPlan, 1);
  p.activation = check.activation();
  const ExchangeArgs exchange = exchangeArgs(check, kWindows, kRank, kWindowTokens, p.capacity);
  p.ranks = exchange.ranks, p.rank = exchange.rank, p.windowTokens = exchange.tokens;
  const int64_t T = p.capacity, received = p.ranks * T;
  p.partial = check.activations(kPartial, {received * p.slots, p.width});
  p.slotPlan = check.dense<const int32_t>(kSlotPlan, DType::i32, {received, p.slots});
  p.h = check.activations(kH, {T, p.width});
  p.identityWeight = check.dense<const float>(kIdentityWeight, DType::f32, {T});
  p.sendSlot = check.dense<const int32_t>(kSendSlot, DType::i32, {T, p.ranks});
  p.rows = check.dense<const int32_t>(kRows, DType::i32, {1});
  p.windows = exchange.windows;
  p.layout = windowLayout({p.ranks, p.windowTokens, p.width, p.slots, p.activation, check.integer(kFp8, 0, 1) == 1});
  p.window = windowArg(check, kWindow, p.layout);
  p.nccl = ncclArgs(check, kOutbox, kCounts, p.ranks, p.layout, args.onGpu);
  p.epoch = check.dense<int64_t>(kEpoch, DType::i64, {1});
  p.control = check.dense<int32_t>(kControl, DType::i32, {kControlWords});
  p.out = check.activations(kOut, {T, p.width});
}

}  // namespace

const OpSpec kEpCombineOp = {"ep_combine", kTensors, kNumArgs, kScalars, kNumScalarArgs, prepare, nullptr, LONGCAT_CPU_BODIES(ep_combine), LONGCAT_CUDA_BODY(ep_combine)};

}  // namespace longcat
