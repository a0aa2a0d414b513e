// mla_decode: its arguments and their checks.
#include "ops/mla_decode/params.h"

#include "ops/check.h"
#include "ops/mla_decode/plan.h"

namespace longcat {
LONGCAT_DECLARE_BODIES(mla_decode)
extern const OpSpec kMlaDecodeOp;

namespace {

enum Arg { kRowSlot = kNumAttentionTensors, kBlockTables, kCounts, kSplits, kQLatent, kPartial, kOut, kNumArgs };
const TensorArg kTensors[kNumArgs] = {{"q", Use::in, false, true}, {"cache", Use::in, false, true},    {"kv_b"},         {"kv_b_scale", Use::in, true},
                                      {"positions"}, {"row_slot"}, {"block_tables"}, {"counts"},
                                      {"splits"},    {"q_latent", Use::out, false, true}, {"partial", Use::out}, {"out", Use::inout, false, true}};

void prepare(const OpArgs& args, void* storage) {
  const ArgCheck check(kMlaDecodeOp, args);
  auto& p = paramsAt<MlaDecodeParams>(storage);
  fillAttentionArgs(check, kBlockTables, kCounts, kOut, p);
  p.maxSplits = check.size(kSplits, 0);
  p.rowSlot = check.dense<const int32_t>(kRowSlot, DType::i32, {p.capacity});
  p.splits = check.dense<const int32_t>(kSplits, DType::i32, {p.maxSplits, 2});
  p.qLatent = check.activations(kQLatent, {p.capacity, p.heads, p.kvRank});
  p.partial = check.dense<float>(kPartial, DType::f32, {p.maxSplits, p.heads, p.kvRank + 2});
}

size_t threadScratch(const void* params) {
  return static_cast<size_t>(mlaDecodeScratch(*static_cast<const MlaDecodeParams*>(params)).size) * sizeof(float);
}

}  // namespace

const OpSpec kMlaDecodeOp = {"mla_decode", kTensors, kNumArgs, kAttentionScalars, kNumAttentionScalars, prepare, threadScratch,
                             LONGCAT_CPU_BODIES(mla_decode), LONGCAT_CUDA_BODY(mla_decode)};

}  // namespace longcat
