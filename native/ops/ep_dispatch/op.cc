// ep_dispatch: its arguments and their checks.
#include "ops/ep_dispatch/params.h"

#include "ops/check.h"
#include "ops/exchange_check.h"

namespace longcat {
LONGCAT_DECLARE_BODIES(ep_dispatch)
extern const OpSpec kEpDispatchOp;

namespace {

enum Arg {
  kH, kIds, kWeights, kRows, kWindows, kWindow, kEpoch, kControl, kReceived, kSendSlot, kExpertStart, kPlanRow, kSlotPlan, kOutbox, kCounts, kNumArgs
};
const TensorArg kTensors[kNumArgs] = {{"h", Use::in, false, true},
                                      {"ids"},
                                      {"weights"},
                                      {"rows"},
                                      {"windows"},
                                      {"window", Use::inout},
                                      {"epoch"},
                                      {"control", Use::inout},
                                      {"received", Use::out, false, true},
                                      {"send_slot", Use::out},
                                      {"expert_start", Use::out},
                                      {"plan_row", Use::out},
                                      {"slot_plan", Use::out},
                                      {"outbox", Use::inout, true},
                                      {"counts", Use::inout, true}};
enum ScalarArg { kRank, kExperts, kWindowTokens, kFp8, kNumScalarArgs };
const char* const kScalars[kNumScalarArgs] = {"rank", "experts", "window_tokens", "fp8"};

void prepare(const OpArgs& args, void* storage) {
  const ArgCheck check(kEpDispatchOp, args);
  auto& p = paramsAt<EpDispatchParams>(storage);
  p.capacity = check.size(kH, 0);
  p.width = check.size(kH, 1);
  p.topK = check.size(kIds, 1);
  p.activation = check.activation();
  p.fp8 = check.integer(kFp8, 0, 1) == 1;
  const ExchangeArgs exchange = exchangeArgs(check, kWindows, kRank, kWindowTokens, p.capacity);
  p.ranks = exchange.ranks, p.rank = exchange.rank, p.windowTokens = exchange.tokens;
  const int64_t experts = check.integer(kExperts, p.ranks, INT32_MAX);
  require(experts % p.ranks == 0, std::to_string(experts) + " experts cannot be shared out evenly among " + std::to_string(p.ranks) + " ranks");
  p.localExperts = experts / p.ranks;
  p.slots = p.topK < p.localExperts ? p.topK : p.localExperts;
  const int64_t T = p.capacity, received = p.ranks * T;
  check.requireArg(kIds, p.topK >= 1 && received * p.slots <= INT32_MAX, "must choose at least one expert, and plan no more entries than an int32 can number");
  p.h = check.activations(kH, {T, p.width});
  p.ids = check.dense<const int32_t>(kIds, DType::i32, {T, p.topK});
  p.weights = check.dense<const float>(kWeights, DType::f32, {T, p.topK});
  p.rows = check.dense<const int32_t>(kRows, DType::i32, {1});
  p.windows = exchange.windows;
  p.layout = windowLayout({p.ranks, p.windowTokens, p.width, p.slots, p.activation, p.fp8});
  p.window = windowArg(check, kWindow, p.layout);
  p.nccl = ncclArgs(check, kOutbox, kCounts, p.ranks, p.layout, args.onGpu);
  p.epoch = check.dense<const int64_t>(kEpoch, DType::i64, {1});
  p.control = check.dense<int32_t>(kControl, DType::i32, {kControlWords});
  p.receivedStride = p.fp8 ? T : p.windowTokens;
  p.received = check.activations(kReceived, {p.ranks * p.receivedStride, p.width});
  check.requireArg(kReceived, p.fp8 || p.received.data == p.window + p.layout.rows, "must be the window's own rows");
  p.sendSlot = check.dense<int32_t>(kSendSlot, DType::i32, {T, p.ranks});
  p.expertStart = check.dense<int32_t>(kExpertStart, DType::i32, {p.localExperts + 1});
  p.planRow = check.dense<int32_t>(kPlanRow, DType::i32, {received * p.slots});
  p.slotPlan = check.dense<int32_t>(kSlotPlan, DType::i32, {received, p.slots});
}

/// Thread 0's: a count for each rank, a place in the plan for each expert.
size_t threadScratch(const void* params) {
  const auto& p = *static_cast<const EpDispatchParams*>(params);
  return static_cast<size_t>(p.ranks + p.localExperts) * sizeof(int32_t);
}

}  // namespace

const OpSpec kEpDispatchOp = {"ep_dispatch", kTensors, kNumArgs, kScalars, kNumScalarArgs, prepare, threadScratch, LONGCAT_CPU_BODIES(ep_dispatch), LONGCAT_CUDA_BODY(ep_dispatch)};

}  // namespace longcat
