// moe_experts at each model's expert sizes: K choices a token, a third of them zero experts. Floor: the bytes of the experts that have rows,
// and their rows' products. Where not all experts' matrices fit, several share one.
#include <algorithm>
#include "ops/harness_bench.h"

using namespace longcat;

namespace {

/// Slot s of token t takes expert (t · 7 + s · 5) mod experts; the last third of its slots are zero experts.
struct Plan {
  std::vector<int32_t> start{0}, planRow, slotPlan;
  int64_t active = 0, entries = 0;
};

Plan planOf(const ModelShape& m, int64_t rows) {
  const int64_t chosen = m.topK - m.topK / 3;
  struct Entry { int32_t row, slot; };
  std::vector<std::vector<Entry>> of(static_cast<size_t>(m.experts));
  for (int32_t r = 0; r < rows; ++r) {
    for (int32_t s = 0; s < chosen; ++s) of[static_cast<size_t>((r * 7 + s * 5) % m.experts)].push_back({r, s});
  }
  Plan plan;
  plan.slotPlan.assign(static_cast<size_t>(rows * m.topK), -1);
  for (const auto& entries : of) {
    for (const Entry& e : entries) {
      plan.slotPlan[static_cast<size_t>(e.row * m.topK + e.slot)] = static_cast<int32_t>(plan.planRow.size());
      plan.planRow.push_back(e.row);
    }
    plan.active += !entries.empty();
    plan.start.push_back(static_cast<int32_t>(plan.planRow.size()));
  }
  plan.entries = static_cast<int64_t>(plan.planRow.size());
  plan.planRow.resize(static_cast<size_t>(rows * m.topK));
  return plan;
}

}  // namespace

LONGCAT_BENCH(moe_experts) {
  for (const ModelShape* m : b.models()) {
    for (DType dtype : b.weightDtypes(*m)) {
      const int64_t width = m->hidden, ffn = m->expertFfn, K = m->topK;
      const double expertBytes = 3.0 * static_cast<double>(width * ffn) * static_cast<double>(bytesOf(dtype));
      const int64_t stored = std::clamp<int64_t>(static_cast<int64_t>(b.weightBudget() / expertBytes), 1, m->experts);
      const bench::Weight gate = b.stack(dtype, m->experts, stored, ffn, width), up = b.stack(dtype, m->experts, stored, ffn, width);
      const bench::Weight down = b.stack(dtype, m->experts, stored, width, ffn);
      for (int64_t T : b.tokens()) {
        const Plan plan = planOf(*m, T);
        const double flops = 6.0 * static_cast<double>(plan.entries) * static_cast<double>(width * ffn);
        if (b.tooMuch(flops)) continue;
        const Tensor h = b.randomActivations({T, width}), weights = b.random(DType::f32, {T, K}, 0, 1), identity = b.random(DType::f32, {T}, 0, 1);
        const Tensor start = b.i32({m->experts + 1}, plan.start), planRow = b.i32({T * K}, plan.planRow), slotPlan = b.i32({T, K}, plan.slotPlan);
        const Tensor hidden = b.activations({T * K, ffn}), partial = b.activations({T * K, width}), out = b.activations({T, width});
        const Tensor rows = b.i32({1}, {static_cast<int32_t>(T)});
        const double bytes = static_cast<double>(plan.active) * expertBytes + 2.0 * static_cast<double>(T * width) * static_cast<double>(bytesOf(b.activation()));
        b.time({m, std::to_string(width) + " to " + std::to_string(ffn) + ", " + std::to_string(plan.active) + " experts", T, shortName(dtype), bytes, flops},
               "moe_experts",
               args({&h, &gate.data, gate.scales(), &up.data, up.scales(), &down.data, down.scales(), &weights, &identity, &start, &planRow, &slotPlan, &hidden,
                     &partial, &out, &rows}));
      }
    }
  }
}
