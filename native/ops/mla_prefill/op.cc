// mla_prefill: its arguments and their checks.
#include "ops/mla_prefill/params.h"

#include "ops/check.h"
#include "ops/mla_prefill/plan.h"

namespace longcat {
LONGCAT_DECLARE_CPU(mla_prefill)
extern const OpSpec kMlaPrefillOp;

namespace {

enum Arg { kQ, kCache, kKvB, kKvBScale, kPositions, kSeqStart, kSeqSlot, kBlockTables, kCounts, kOut, kState, kNumArgs };
const TensorArg kTensors[kNumArgs] = {{"q"},         {"cache"},    {"kv_b"},         {"kv_b_scale", Use::in, true},
                                      {"positions"}, {"seq_start"}, {"seq_slot"},    {"block_tables"},
                                      {"counts"},    {"out", Use::out}, {"state", Use::out}};
enum ScalarArg { kHeads, kNope, kRope, kVDim, kSoftmaxScale, kNumScalarArgs };
const char* const kScalars[kNumScalarArgs] = {"heads", "nope", "rope", "v_dim", "softmax_scale"};

void prepare(const OpArgs& args, void* storage) {
  const ArgCheck check(kMlaPrefillOp, args);
  auto& p = paramsAt<MlaPrefillParams>(storage);
  p.heads = static_cast<int32_t>(check.integer(kHeads, 1, 1 << 16));
  p.nope = static_cast<int32_t>(check.integer(kNope, 1, 1 << 16));
  p.rope = static_cast<int32_t>(check.integer(kRope, 1, 1 << 16));
  p.vDim = static_cast<int32_t>(check.integer(kVDim, 1, 1 << 16));
  p.softmaxScale = static_cast<float>(check.scalar(kSoftmaxScale));

  p.capacity = check.size(kQ, 0);
  const int64_t width = check.size(kCache, 2), sequences = check.size(kSeqSlot, 0);
  p.kvRank = width - p.rope;
  p.q = check.dense<const float>(kQ, DType::f32, {p.capacity, p.heads, p.nope + p.rope});
  p.cache = check.dense<const float>(kCache, DType::f32, {kAnySize, kAnySize, width});
  p.blockSize = check.size(kCache, 1);
  check.requireArg(kCache, p.kvRank > 0, "has no room for a latent beside the rope key");
  check.requireArg(kCache, check.size(kCache, 0) * p.blockSize <= INT32_MAX, "has more rows than an int32 can number");
  p.kvB = check.weight(kKvB, kKvBScale, p.heads * (p.nope + p.vDim), p.kvRank);
  p.positions = check.dense<const int32_t>(kPositions, DType::i32, {p.capacity});
  p.seqStart = check.dense<const int32_t>(kSeqStart, DType::i32, {sequences + 1});
  p.seqSlot = check.dense<const int32_t>(kSeqSlot, DType::i32, {sequences});
  p.blockTables = check.dense<const int32_t>(kBlockTables, DType::i32, {kAnySize, kAnySize});
  p.maxBlocks = check.size(kBlockTables, 1);
  p.counts = check.dense<const int32_t>(kCounts, DType::i32, {8});
  p.out = check.dense<float>(kOut, DType::f32, {p.capacity, p.heads * p.vDim});
  p.state = check.dense<float>(kState, DType::f32, {p.capacity, p.heads, 2});
}

size_t threadScratch(const void* params) {
  return static_cast<size_t>(mlaPrefillScratch(*static_cast<const MlaPrefillParams*>(params)).size) * sizeof(float);
}

}  // namespace

const OpSpec kMlaPrefillOp = {"mla_prefill", kTensors, kNumArgs, kScalars, kNumScalarArgs, prepare, threadScratch,
                              LONGCAT_CPU_BODIES(mla_prefill)};

}  // namespace longcat
