// moe_experts_backward on the CPU: a task an expert, over the rows that chose it, then each token's sum.
#include "ops/moe_experts/backward/params.h"

#include "cpu/gemm.h"
#include "cpu/gemm_gradients.h"
#include "cpu/swiglu_gradients.h"

namespace longcat::LONGCAT_ISA {
namespace {

/// The slot of [T, K] that plan entry `entry` came from.
int64_t slotOf(const MoeExpertsBackwardParams& p, int64_t entry) {
  int64_t slot = p.planRow[entry] * p.topK;
  while (p.slotPlan[slot] != entry) ++slot;
  return slot;
}

void expertBack(const MoeExpertsBackwardParams& p, int64_t e) {
  const int64_t first = p.expertStart[e], count = p.expertStart[e + 1] - first, width = p.gate.weight.columns, ffn = p.gate.weight.rows;
  if (count <= 0) return;
  const Trainable gate = p.gate.at(e), up = p.up.at(e), down = p.down.at(e);
  const int32_t* index = p.planRow + first;
  float *gateRows = p.gateRows + first * ffn, *upRows = p.upRows + first * ffn, *hiddenRows = p.hiddenRows + first * ffn;
  const Rows h{p.h, width, index}, dOut{p.dOut, width, index}, dGate{gateRows, ffn}, dUp{upRows, ffn}, hidden{hiddenRows, ffn};

  gemm(p.h, width, index, count, gate.weight, 0, ffn, gateRows, ffn);
  gemm(p.h, width, index, count, up.weight, 0, ffn, upRows, ffn);
  gemmNN(dOut, count, width, {down.values(), ffn}, ffn, {hiddenRows, ffn});
  for (int64_t i = 0; i < count; ++i) {
    const int64_t slot = slotOf(p, first + i);
    p.dWeights[slot] = gateGradientRow(gateRows + i * ffn, upRows + i * ffn, hiddenRows + i * ffn, ffn, p.weights[slot]);
  }
  gemmTN(dOut, 0, width, count, hidden, ffn, {down.gradient, ffn, true});
  gemmTN(dGate, 0, ffn, count, h, width, {gate.gradient, width, true});
  gemmTN(dUp, 0, ffn, count, h, width, {up.gradient, width, true});
  gemmNN(dGate, count, ffn, {gate.values(), width}, width, {p.partial + first * width, width});
  gemmNN(dUp, count, ffn, {up.values(), width}, width, {p.partial + first * width, width, true});
}

/// dh of token t, and the gradients of its zero experts' weights.
void tokenBack(const MoeExpertsBackwardParams& p, int64_t t) {
  const int64_t width = p.gate.weight.columns;
  const int32_t* plan = p.slotPlan + t * p.topK;
  const float *h = p.h + t * width, *dOut = p.dOut + t * width;
  const Vec identity = set1(p.identityWeight[t]);
  Vec products = zero();
  forLanes(width, [&](int64_t k, int n) {
    const Vec d = loadN(dOut + k, n);
    Vec total = zero();
    for (int64_t slot = 0; slot < p.topK; ++slot)
      if (plan[slot] >= 0) total = add(total, loadN(p.partial + plan[slot] * width + k, n));
    products = fma(d, loadN(h + k, n), products);
    storeN(p.dH + t * width + k, fma(identity, d, total), n);
  });
  for (int64_t slot = 0; slot < p.topK; ++slot)
    if (plan[slot] < 0) p.dWeights[t * p.topK + slot] = sum(products);
}

}  // namespace

void moe_experts_backward(const void* params, const CpuContext& context) {
  const auto& p = *static_cast<const MoeExpertsBackwardParams*>(params);
  forTasks(context, p.gate.weight.count, [&](int64_t e, int) { expertBack(p, e); });
  forRows(context, liveRows(p.rows, p.capacity), (p.topK + 2) * p.gate.weight.columns, [&](int64_t first, int64_t end, int) {
    for (int64_t t = first; t < end; ++t) tokenBack(p, t);
  });
}

}  // namespace longcat::LONGCAT_ISA
