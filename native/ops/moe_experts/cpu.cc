// moe_experts on the CPU: a grouped SwiGLU over the plan's entries, a grouped product down, then each token's weighted sum.
// The sum's order: the first expert's product, then one fused step an expert in ascending id, the identity term last.
#include "ops/moe_experts/params.h"

#include "cpu/swiglu.h"
#include "ops/moe_experts/plan.h"

namespace longcat::LONGCAT_ISA {
namespace {

/// f(expert, first entry, entries, begin, end, thread) for the chunks of outputs of every expert that has rows.
template <class F>
LONGCAT_INLINE void forExperts(const MoeExpertsParams& p, const CpuContext& context, int64_t outputs, int64_t inputs, const F& f) {
  auto* list = reinterpret_cast<ExpertTasks*>(context.scratch<char>(0) + kSwigluScratchBytes);
  const int64_t wanted = context.pool.threads() == 1 ? 1 : 4 * context.pool.threads();
  const int64_t active = planExpertTasks(
      p.expertStart, p.gate.count, outputs, wanted, kTaskProducts, [&](int64_t rows) { return rowsCost(rows) * outputs * inputs; }, list);
  forTasks(context, list[active].first, [&](int64_t task, int thread) {
    const ExpertTasks& t = expertOfTask(list, active, task);
    const int64_t begin = (task - t.first) * t.chunk, first = p.expertStart[t.expert];
    f(t.expert, first, p.expertStart[t.expert + 1] - first, begin, smaller(outputs, begin + t.chunk), thread);
  });
}

void combineToken(const MoeExpertsParams& p, int64_t t) {
  const int64_t width = p.gate.columns;
  const float* weights = p.weights + t * p.topK;
  const int32_t* plan = p.slotPlan + t * p.topK;
  const float identity = p.identityWeight[t];
  forLanes(width, [&](int64_t k, int n) {
    Vec total = zero();
    bool any = false;
    for (int64_t slot = 0; slot < p.topK; ++slot) {
      if (plan[slot] < 0) continue;
      const Vec part = loadN(p.partial + plan[slot] * width + k, n), weight = set1(weights[slot]);
      total = any ? fma(weight, part, total) : mul(weight, part);
      any = true;
    }
    if (identity != 0.0f) {
      const Vec h = loadN(p.h + t * width + k, n);
      total = any ? fma(set1(identity), h, total) : mul(set1(identity), h);
    }
    storeN(p.out + t * width + k, total, n);
  });
}

}  // namespace

void moe_experts(const void* params, const CpuContext& context) {
  const auto& p = *static_cast<const MoeExpertsParams*>(params);
  const int64_t width = p.gate.columns, ffn = p.gate.rows;
  forExperts(p, context, ffn, 2 * width, [&](int64_t e, int64_t first, int64_t rows, int64_t begin, int64_t end, int thread) {
    swigluHidden(p.h, width, p.planRow + first, rows, p.gate.at(e), p.up.at(e), begin, end, p.hidden + first * ffn, ffn,
                 context.scratch<float>(thread));
  });
  forExperts(p, context, width, ffn, [&](int64_t e, int64_t first, int64_t rows, int64_t begin, int64_t end, int) {
    gemm(p.hidden + first * ffn, ffn, nullptr, rows, p.down.at(e), begin, end, p.partial + first * width, width);
  });
  if (!p.out) return;
  forRows(context, liveRows(p.rows, p.capacity), (p.topK + 1) * width, [&](int64_t first, int64_t end, int) {
    for (int64_t t = first; t < end; ++t) combineToken(p, t);
  });
}

}  // namespace longcat::LONGCAT_ISA
