// mla_decode: its arguments and their checks.
#include "ops/mla_decode/params.h"

#include "ops/check.h"
#include "ops/mla_decode/plan.h"

namespace longcat {
LONGCAT_DECLARE_CPU(mla_decode)
extern const OpSpec kMlaDecodeOp;

namespace {

enum Arg { kQ, kCache, kKvB, kKvBScale, kPositions, kRowSlot, kBlockTables, kCounts, kSplits, kQLatent, kPartial, kOut, kNumArgs };
const TensorArg kTensors[kNumArgs] = {{"q"},         {"cache"},    {"kv_b"},         {"kv_b_scale", Use::in, true},
                                      {"positions"}, {"row_slot"}, {"block_tables"}, {"counts"},
                                      {"splits"},    {"q_latent", Use::out}, {"partial", Use::out}, {"out", Use::out}};
enum ScalarArg { kHeads, kNope, kRope, kVDim, kSoftmaxScale, kNumScalarArgs };
const char* const kScalars[kNumScalarArgs] = {"heads", "nope", "rope", "v_dim", "softmax_scale"};

void prepare(const OpArgs& args, void* storage) {
  const ArgCheck check(kMlaDecodeOp, args);
  auto& p = paramsAt<MlaDecodeParams>(storage);
  p.heads = static_cast<int32_t>(check.integer(kHeads, 1, 1 << 16));
  p.nope = static_cast<int32_t>(check.integer(kNope, 1, 1 << 16));
  p.rope = static_cast<int32_t>(check.integer(kRope, 1, 1 << 16));
  p.vDim = static_cast<int32_t>(check.integer(kVDim, 1, 1 << 16));
  p.softmaxScale = static_cast<float>(check.scalar(kSoftmaxScale));

  p.capacity = check.size(kQ, 0);
  p.maxSplits = check.size(kSplits, 0);
  const int64_t width = check.size(kCache, 2);
  p.kvRank = width - p.rope;
  check.requireArg(kCache, p.kvRank > 0, "has no room for a latent beside the rope key");
  p.q = check.dense<const float>(kQ, DType::f32, {p.capacity, p.heads, p.nope + p.rope});
  p.cache = check.dense<const float>(kCache, DType::f32, {kAnySize, kAnySize, width});
  p.blockSize = check.size(kCache, 1);
  p.kvB = check.weight(kKvB, kKvBScale, p.heads * (p.nope + p.vDim), p.kvRank);
  p.positions = check.dense<const int32_t>(kPositions, DType::i32, {p.capacity});
  p.rowSlot = check.dense<const int32_t>(kRowSlot, DType::i32, {p.capacity});
  p.blockTables = check.dense<const int32_t>(kBlockTables, DType::i32, {kAnySize, kAnySize});
  p.maxBlocks = check.size(kBlockTables, 1);
  p.counts = check.dense<const int32_t>(kCounts, DType::i32, {8});
  p.splits = check.dense<const int32_t>(kSplits, DType::i32, {p.maxSplits, 2});
  p.qLatent = check.dense<float>(kQLatent, DType::f32, {p.capacity, p.heads, p.kvRank});
  p.partial = check.dense<float>(kPartial, DType::f32, {p.maxSplits, p.heads, p.kvRank + 2});
  p.out = check.dense<float>(kOut, DType::f32, {p.capacity, p.heads * p.vDim});
}

size_t threadScratch(const void* params) {
  return static_cast<size_t>(mlaDecodeScratch(*static_cast<const MlaDecodeParams*>(params)).size) * sizeof(float);
}

}  // namespace

const OpSpec kMlaDecodeOp = {"mla_decode", kTensors, kNumArgs, kScalars, kNumScalarArgs, prepare, threadScratch,
                             LONGCAT_CPU_BODIES(mla_decode)};

}  // namespace longcat
