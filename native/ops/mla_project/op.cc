// mla_project: its arguments and their checks.
#include "ops/mla_project/params.h"

#include "ops/check.h"
#include "ops/latent_cache_check.h"

namespace longcat {
LONGCAT_DECLARE_BODIES(mla_project)
extern const OpSpec kMlaProjectOp;

namespace {

enum Arg {
  kX, kQA, kQAScale, kQABias, kQANorm, kQB, kQBScale, kKvA, kKvAScale, kKvABias, kKvANorm, kCosSin, kPositions, kRowSlot, kBlockTables,
  kQLatent, kKvLatent, kLatentLanes, kQ, kCache, kRows, kNumArgs
};
const TensorArg kTensors[kNumArgs] = {{"x", Use::in, false, true},
                                      {"q_a"},
                                      {"q_a_scale", Use::in, true},
                                      {"q_a_bias", Use::in, true},
                                      {"q_a_norm"},
                                      {"q_b"},
                                      {"q_b_scale", Use::in, true},
                                      {"kv_a"},
                                      {"kv_a_scale", Use::in, true},
                                      {"kv_a_bias", Use::in, true},
                                      {"kv_a_norm"},
                                      {"cos_sin"},
                                      {"positions"},
                                      {"row_slot"},
                                      {"block_tables"},
                                      {"q_latent", Use::out, false, true},
                                      {"kv_latent", Use::out, false, true},
                                      {"latent_lanes", Use::out, true},
                                      {"q", Use::out, false, true},
                                      {"cache", Use::inout, false, true},
                                      {"rows"}};
enum ScalarArg { kHeads, kNope, kRope, kEps, kQScaleFactor, kKvScaleFactor, kNumScalarArgs };
const char* const kScalars[kNumScalarArgs] = {"heads", "nope", "rope", "eps", "q_scale", "kv_scale"};

void prepare(const OpArgs& args, void* storage) {
  const ArgCheck check(kMlaProjectOp, args);
  auto& p = paramsAt<MlaProjectParams>(storage);
  p.heads = check.integer(kHeads, 1, 1 << 16);
  p.nope = check.integer(kNope, 1, 1 << 16);
  p.rope = check.integer(kRope, 2, 1 << 16);
  require(p.rope % 2 == 0, "mla_project: rope must be even");
  p.eps = static_cast<float>(check.scalar(kEps));
  p.qScale = static_cast<float>(check.scalar(kQScaleFactor));
  p.kvScale = static_cast<float>(check.scalar(kKvScaleFactor));

  p.capacity = check.size(kX, 0);
  p.activation = check.activation();
  const int64_t hidden = check.size(kX, 1), qRank = check.size(kQLatent, 1), width = check.size(kKvLatent, 1), head = p.nope + p.rope;
  check.requireArg(kKvLatent, width > p.rope, "has no room for a latent beside the rope key");
  p.x = check.activations(kX, {p.capacity, hidden});
  p.qA = check.weight(kQA, kQAScale, qRank, hidden);
  p.qABias = check.weight(kQABias, -1, 1, qRank);
  p.qANorm = check.weight(kQANorm, -1, 1, qRank);
  p.qB = check.weight(kQB, kQBScale, p.heads * head, qRank);
  p.kvA = check.weight(kKvA, kKvAScale, width, hidden);
  p.kvABias = check.weight(kKvABias, -1, 1, width);
  p.kvANorm = check.weight(kKvANorm, -1, 1, width - p.rope);
  p.cosSin = check.dense<const float>(kCosSin, DType::f32, {p.capacity, p.rope});
  p.positions = check.dense<const int32_t>(kPositions, DType::i32, {p.capacity});
  p.rowSlot = check.dense<const int32_t>(kRowSlot, DType::i32, {p.capacity});
  p.blockTables = check.dense<const int32_t>(kBlockTables, DType::i32, {kAnySize, kAnySize});
  p.maxBlocks = check.size(kBlockTables, 1);
  p.qLatent = check.activations(kQLatent, {p.capacity, qRank});
  p.kvLatent = check.activations(kKvLatent, {p.capacity, width});
  p.latentLanes = check.dense<float>(kLatentLanes, DType::f32, {kAnySize, kAnySize, qRank + width});
  p.mostLanes = p.latentLanes ? check.size(kLatentLanes, 0) : 0;
  p.laneRows = p.latentLanes ? check.size(kLatentLanes, 1) : 0;
  p.q = check.activations(kQ, {p.capacity, p.heads, head});
  p.cache = latentCache(check, kCache, width - p.rope, p.rope, &p.packedCache);
  p.blockSize = check.size(kCache, 1);
  p.rows = check.dense<const int32_t>(kRows, DType::i32, {1});
}

size_t threadScratch(const void* params) { return static_cast<size_t>(static_cast<const MlaProjectParams*>(params)->rope) * sizeof(float); }

}  // namespace

const OpSpec kMlaProjectOp = {"mla_project", kTensors, kNumArgs, kScalars, kNumScalarArgs, prepare, threadScratch,
                              LONGCAT_CPU_BODIES(mla_project), LONGCAT_CUDA_BODY(mla_project)};

}  // namespace longcat
