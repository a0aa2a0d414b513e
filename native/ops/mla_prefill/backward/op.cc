// mla_prefill_backward: its arguments and their checks.
#include "ops/mla_prefill/backward/params.h"

#include "ops/check.h"

namespace longcat {
LONGCAT_DECLARE_CPU(mla_prefill_backward)
extern const OpSpec kMlaPrefillBackwardOp;

namespace {

enum Arg { kQ, kLatents, kKvB, kDKvB, kSeqStart, kCounts, kOut, kState, kDOut, kDQ, kDLatents, kDExpanded, kDRopeKeys, kNumArgs };
const TensorArg kTensors[kNumArgs] = {{"q"}, {"latents"}, {"kv_b"}, {"d_kv_b", Use::inout}, {"seq_start"}, {"counts"}, {"out"}, {"state"}, {"d_out"},
                                      {"d_q", Use::out}, {"d_latents", Use::out}, {"d_expanded", Use::out}, {"d_rope_keys", Use::out}};
enum ScalarArg { kHeads, kNope, kRope, kVDim, kSoftmaxScale, kNumScalarArgs };
const char* const kScalars[kNumScalarArgs] = {"heads", "nope", "rope", "v_dim", "softmax_scale"};

void prepare(const OpArgs& args, void* storage) {
  const ArgCheck check(kMlaPrefillBackwardOp, args);
  auto& p = paramsAt<MlaPrefillBackwardParams>(storage);
  constexpr int64_t kMaxSize = 1 << 16;
  p.heads = check.integer(kHeads, 1, kMaxSize);
  p.nope = check.integer(kNope, 1, kMaxSize);
  p.rope = check.integer(kRope, 1, kMaxSize);
  p.vDim = check.integer(kVDim, 1, kMaxSize);
  p.softmaxScale = static_cast<float>(check.scalar(kSoftmaxScale));

  p.capacity = check.size(kQ, 0);
  const int64_t T = p.capacity, width = check.size(kLatents, 1), expanded = p.heads * (p.nope + p.vDim);
  check.requireArg(kLatents, width > p.rope, "has no room for a latent beside the rope key");
  p.kvRank = width - p.rope;
  p.q = check.dense<const float>(kQ, DType::f32, {T, p.heads, p.nope + p.rope});
  p.latents = check.dense<const float>(kLatents, DType::f32, {T, width});
  p.kvB = trainable(check, kKvB, kDKvB, expanded, p.kvRank);
  p.maxSequences = check.size(kSeqStart, 0) - 1;
  p.seqStart = check.dense<const int32_t>(kSeqStart, DType::i32, {p.maxSequences + 1});
  p.counts = check.dense<const int32_t>(kCounts, DType::i32, {8});
  p.out = check.dense<const float>(kOut, DType::f32, {T, p.heads * p.vDim});
  p.state = check.dense<const float>(kState, DType::f32, {T, p.heads, 2});
  p.dOut = check.dense<const float>(kDOut, DType::f32, {T, p.heads * p.vDim});
  p.dQ = check.dense<float>(kDQ, DType::f32, {T, p.heads, p.nope + p.rope});
  p.dLatents = check.dense<float>(kDLatents, DType::f32, {T, width});
  p.dExpanded = check.dense<float>(kDExpanded, DType::f32, {T, expanded});
  p.dRopeKeys = check.dense<float>(kDRopeKeys, DType::f32, {T, p.heads * p.rope});
}

size_t threadScratch(const void* params) {
  return static_cast<size_t>(mlaPrefillBackwardScratch(*static_cast<const MlaPrefillBackwardParams*>(params)).size) * sizeof(float);
}

}  // namespace

const OpSpec kMlaPrefillBackwardOp = {"mla_prefill_backward", kTensors, kNumArgs, kScalars, kNumScalarArgs, prepare, threadScratch,
                                      LONGCAT_CPU_BODIES(mla_prefill_backward), nullptr};

}  // namespace longcat
