// mla_project_backward: its arguments and their checks.
#include "ops/mla_project/backward/params.h"

#include "ops/check.h"

namespace longcat {
LONGCAT_DECLARE_CPU(mla_project_backward)
extern const OpSpec kMlaProjectBackwardOp;

namespace {

enum Arg {
  kX, kQA, kDQA, kQABias, kDQABias, kQANorm, kDQANorm, kQB, kDQB, kKvA, kDKvA, kKvABias, kDKvABias, kKvANorm, kDKvANorm, kCosSin, kDQ, kDLatents,
  kDX, kQLatent, kQNormed, kDQLatent, kKvLatent, kScales, kRows, kNumArgs
};
const TensorArg kTensors[kNumArgs] = {{"x"},
                                      {"q_a"},
                                      {"d_q_a", Use::inout},
                                      {"q_a_bias", Use::in, true},
                                      {"d_q_a_bias", Use::inout, true},
                                      {"q_a_norm"},
                                      {"d_q_a_norm", Use::inout},
                                      {"q_b"},
                                      {"d_q_b", Use::inout},
                                      {"kv_a"},
                                      {"d_kv_a", Use::inout},
                                      {"kv_a_bias", Use::in, true},
                                      {"d_kv_a_bias", Use::inout, true},
                                      {"kv_a_norm"},
                                      {"d_kv_a_norm", Use::inout},
                                      {"cos_sin"},
                                      {"d_q", Use::inout},
                                      {"d_latents", Use::inout},
                                      {"d_x", Use::out},
                                      {"q_latent", Use::out},
                                      {"q_normed", Use::out},
                                      {"d_q_latent", Use::out},
                                      {"kv_latent", Use::out},
                                      {"scales", Use::out},
                                      {"rows"}};
enum ScalarArg { kHeads, kNope, kRope, kEps, kQScaleFactor, kKvScaleFactor, kNumScalarArgs };
const char* const kScalars[kNumScalarArgs] = {"heads", "nope", "rope", "eps", "q_scale", "kv_scale"};

void prepare(const OpArgs& args, void* storage) {
  const ArgCheck check(kMlaProjectBackwardOp, args);
  auto& p = paramsAt<MlaProjectBackwardParams>(storage);
  p.heads = check.integer(kHeads, 1, 1 << 16);
  p.nope = check.integer(kNope, 1, 1 << 16);
  p.rope = check.integer(kRope, 2, 1 << 16);
  require(p.rope % 2 == 0, "mla_project_backward: rope must be even");
  p.eps = static_cast<float>(check.scalar(kEps));
  p.qScale = static_cast<float>(check.scalar(kQScaleFactor));
  p.kvScale = static_cast<float>(check.scalar(kKvScaleFactor));

  p.capacity = check.size(kX, 0);
  const int64_t T = p.capacity, hidden = check.size(kX, 1), qRank = check.size(kQLatent, 1), width = check.size(kKvLatent, 1), head = p.nope + p.rope;
  check.requireArg(kKvLatent, width > p.rope, "has no room for a latent beside the rope key");
  p.x = check.dense<const float>(kX, DType::f32, {T, hidden});
  p.qA = trainable(check, kQA, kDQA, qRank, hidden);
  p.qABias = trainable(check, kQABias, kDQABias, 1, qRank);
  p.qANorm = trainable(check, kQANorm, kDQANorm, 1, qRank);
  p.qB = trainable(check, kQB, kDQB, p.heads * head, qRank);
  p.kvA = trainable(check, kKvA, kDKvA, width, hidden);
  p.kvABias = trainable(check, kKvABias, kDKvABias, 1, width);
  p.kvANorm = trainable(check, kKvANorm, kDKvANorm, 1, width - p.rope);
  p.cosSin = check.dense<const float>(kCosSin, DType::f32, {T, p.rope});
  p.dQ = check.dense<float>(kDQ, DType::f32, {T, p.heads, head});
  p.dLatents = check.dense<float>(kDLatents, DType::f32, {T, width});
  p.dX = check.dense<float>(kDX, DType::f32, {T, hidden});
  p.qLatent = check.dense<float>(kQLatent, DType::f32, {T, qRank});
  p.qNormed = check.dense<float>(kQNormed, DType::f32, {T, qRank});
  p.dQLatent = check.dense<float>(kDQLatent, DType::f32, {T, qRank});
  p.kvLatent = check.dense<float>(kKvLatent, DType::f32, {T, width});
  p.scales = check.dense<float>(kScales, DType::f32, {2, T});
  p.rows = check.dense<const int32_t>(kRows, DType::i32, {1});
}

/// A rope part.
size_t threadScratch(const void* params) { return static_cast<size_t>(static_cast<const MlaProjectBackwardParams*>(params)->rope) * sizeof(float); }

}  // namespace

const OpSpec kMlaProjectBackwardOp = {"mla_project_backward", kTensors, kNumArgs, kScalars, kNumScalarArgs, prepare, threadScratch,
                                      LONGCAT_CPU_BODIES(mla_project_backward), nullptr};

}  // namespace longcat
