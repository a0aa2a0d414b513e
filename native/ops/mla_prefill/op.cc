// mla_prefill: its arguments and their checks.
#include "ops/mla_prefill/params.h"

#include "ops/check.h"
#include "ops/mla_prefill/plan.h"

namespace longcat {
LONGCAT_DECLARE_BODIES(mla_prefill)
extern const OpSpec kMlaPrefillOp;

namespace {

enum Arg { kSeqStart = kNumAttentionTensors, kSeqSlot, kBlockTables, kCounts, kOut, kState, kExpanded, kAccumulator, kRoundPlan, kLatents, kNumArgs };
constexpr int kMaxKeys = kNumAttentionScalars;  // its scalar
const TensorArg kTensors[kNumArgs] = {{"q", Use::in, false, true}, {"cache", Use::in, false, true},    {"kv_b"},         {"kv_b_scale", Use::in, true},
                                      {"positions"}, {"seq_start"}, {"seq_slot"},    {"block_tables"},
                                      {"counts"},    {"out", Use::inout, false, true}, {"state", Use::out},
                                      {"expanded", Use::out, true, true}, {"accumulator", Use::out, true}, {"round_plan", Use::out, true},
                                      {"latents", Use::out, true, true}};

const char* const kScalars[] = {"heads", "nope", "rope", "v_dim", "softmax_scale", "max_keys"};

void prepare(const OpArgs& args, void* storage) {
  const ArgCheck check(kMlaPrefillOp, args);
  auto& p = paramsAt<MlaPrefillParams>(storage);
  fillAttentionArgs(check, kBlockTables, kCounts, kOut, p);
  const int64_t sequences = check.size(kSeqSlot, 0);
  p.seqStart = check.dense<const int32_t>(kSeqStart, DType::i32, {sequences + 1});
  p.seqSlot = check.dense<const int32_t>(kSeqSlot, DType::i32, {sequences});
  p.maxSequences = sequences;
  p.state = check.dense<float>(kState, DType::f32, {p.capacity, p.heads, 2});
  p.expanded = check.activations(kExpanded, {kAnySize, p.heads, p.nope + p.vDim});
  p.accumulator = check.dense<float>(kAccumulator, DType::f32, {p.capacity, p.heads, p.vDim});
  p.expandedRows = check.has(kExpanded) ? check.size(kExpanded, 0) : 0;
  p.roundPlan = check.dense<int32_t>(kRoundPlan, DType::i32, {roundPlanNumbers(p.capacity, sequences, p.expandedRows)});
  p.latents = check.activations(kLatents, {p.expandedRows, p.kvRank + p.rope});
  p.maxKeys = check.integer(kMaxKeys, 0, INT32_MAX);
  require(!args.onGpu || (p.expandedRows > 0 && p.accumulator && p.roundPlan), "mla_prefill: a GPU needs expanded, accumulator and round_plan");
  require(!args.onGpu || !p.packedCache || p.latents.data, "mla_prefill: a GPU needs latents for a packed cache");
  require(reinterpret_cast<uintptr_t>(p.roundPlan) % sizeof(int64_t) == 0, "mla_prefill: round_plan must begin at a multiple of 8 bytes");
  require(p.expandedRows % kKeyTile == 0, "mla_prefill: expanded must have a multiple of " + std::to_string(kKeyTile) + " rows");
}

size_t threadScratch(const void* params) {
  return static_cast<size_t>(mlaPrefillScratch(*static_cast<const MlaPrefillParams*>(params)).size) * sizeof(float);
}

}  // namespace

const OpSpec kMlaPrefillOp = {"mla_prefill", kTensors, kNumArgs, kScalars, kNumAttentionScalars + 1, prepare, threadScratch,
                              LONGCAT_CPU_BODIES(mla_prefill), LONGCAT_CUDA_BODY(mla_prefill)};

}  // namespace longcat
