// mla_prefill: its arguments and their checks.
#include "ops/mla_prefill/params.h"

#include "ops/check.h"
#include "ops/mla_prefill/plan.h"

namespace longcat {
LONGCAT_DECLARE_CPU(mla_prefill)
extern const OpSpec kMlaPrefillOp;

namespace {

enum Arg { kSeqStart = kNumAttentionTensors, kSeqSlot, kBlockTables, kCounts, kOut, kState, kNumArgs };
const TensorArg kTensors[kNumArgs] = {{"q"},         {"cache"},    {"kv_b"},         {"kv_b_scale", Use::in, true},
                                      {"positions"}, {"seq_start"}, {"seq_slot"},    {"block_tables"},
                                      {"counts"},    {"out", Use::inout}, {"state", Use::out}};

void prepare(const OpArgs& args, void* storage) {
  const ArgCheck check(kMlaPrefillOp, args);
  auto& p = paramsAt<MlaPrefillParams>(storage);
  fillAttentionArgs(check, kBlockTables, kCounts, kOut, p);
  const int64_t sequences = check.size(kSeqSlot, 0);
  p.seqStart = check.dense<const int32_t>(kSeqStart, DType::i32, {sequences + 1});
  p.seqSlot = check.dense<const int32_t>(kSeqSlot, DType::i32, {sequences});
  p.state = check.dense<float>(kState, DType::f32, {p.capacity, p.heads, 2});
}

size_t threadScratch(const void* params) {
  return static_cast<size_t>(mlaPrefillScratch(*static_cast<const MlaPrefillParams*>(params)).size) * sizeof(float);
}

}  // namespace

const OpSpec kMlaPrefillOp = {"mla_prefill", kTensors, kNumArgs, kAttentionScalars, kNumAttentionScalars, prepare, threadScratch,
                              LONGCAT_CPU_BODIES(mla_prefill)};

}  // namespace longcat
