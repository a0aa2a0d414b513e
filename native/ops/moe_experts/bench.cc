// moe_experts at mini's, Lite's and LongCat-Flash's expert sizes: K experts a token, a third of the choices zero experts.
// Floor: the bytes of the experts that have rows (several share one stored matrix here, so that Flash fits a small machine).
#include "ops/bench_weights.h"

using namespace longcat;

namespace {

struct Size { int64_t width, ffn, experts, topK, stored; };

/// Slot s of token t takes expert (t · 7 + s · 5) mod experts; the last third of its slots are zero experts.
struct Plan {
  std::vector<int32_t> start, planRow, slotPlan;
  int64_t active = 0;
};
Plan planOf(const Size& size, int64_t rows) {
  const int64_t chosen = size.topK - size.topK / 3;
  Plan plan{{0}, {}, std::vector<int32_t>(static_cast<size_t>(rows * size.topK), -1)};
  for (int64_t e = 0; e < size.experts; ++e) {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t s = 0; s < chosen; ++s) {
        if ((r * 7 + s * 5) % size.experts != e) continue;
        plan.slotPlan[static_cast<size_t>(r * size.topK + s)] = static_cast<int32_t>(plan.planRow.size());
        plan.planRow.push_back(static_cast<int32_t>(r));
      }
    }
    plan.active += static_cast<int32_t>(plan.planRow.size()) > plan.start.back();
    plan.start.push_back(static_cast<int32_t>(plan.planRow.size()));
  }
  return plan;
}

Tensor repeated(OpContext& b, const std::vector<bench::Weight>& stored, int64_t count, Tensor bench::Weight::*which) {
  std::vector<Tensor> all;
  for (int64_t e = 0; e < count; ++e) all.push_back(stored[static_cast<size_t>(e) % stored.size()].*which);
  return b.stack(all);
}

}  // namespace

LONGCAT_BENCH(moe_experts) {
  for (DType dtype : {DType::bf16, DType::f8e4m3}) {
    for (const Size& size : {Size{256, 128, 24, 6, 24}, Size{3072, 1024, 256, 12, 32}, Size{6144, 2048, 512, 12, 8}}) {
      std::vector<bench::Weight> gates, ups, downs;
      for (int64_t e = 0; e < size.stored; ++e) {
        gates.push_back(bench::weight(b, dtype, size.ffn, size.width));
        ups.push_back(bench::weight(b, dtype, size.ffn, size.width));
        downs.push_back(bench::weight(b, dtype, size.width, size.ffn));
      }
      const bool fp8 = dtype == DType::f8e4m3;
      const auto stack = [&](const std::vector<bench::Weight>& of, Tensor bench::Weight::*which) { return repeated(b, of, size.experts, which); };
      const Tensor gate = stack(gates, &bench::Weight::data), up = stack(ups, &bench::Weight::data), down = stack(downs, &bench::Weight::data);
      Tensor scales[3];
      if (fp8) scales[0] = stack(gates, &bench::Weight::scale), scales[1] = stack(ups, &bench::Weight::scale), scales[2] = stack(downs, &bench::Weight::scale);
      for (int64_t R : {1, 16, 256}) {
        if (R > 16 && size.width > 3072) continue;
        Plan plan = planOf(size, R);
        const int64_t K = size.topK;
        const double entries = static_cast<double>(plan.planRow.size());
        plan.planRow.resize(static_cast<size_t>(R * K));
        const Tensor h = b.randomF32({R, size.width}), weights = b.randomF32({R, K}), identity = b.randomF32({R});
        const Tensor start = b.i32({size.experts + 1}, plan.start), planRow = b.i32({R * K}, plan.planRow), slotPlan = b.i32({R, K}, plan.slotPlan);
        const Tensor hidden = b.f32({R * K, size.ffn}), partial = b.f32({R * K, size.width}), out = b.f32({R, size.width}), rows = b.i32({1}, {static_cast<int32_t>(R)});
        b.time(bench::label(dtype, R, std::to_string(size.width) + " to " + std::to_string(size.ffn) + ", " + std::to_string(plan.active) + " experts"), "moe_experts",
               args({&h, &gate, fp8 ? &scales[0] : nullptr, &up, fp8 ? &scales[1] : nullptr, &down, fp8 ? &scales[2] : nullptr, &weights, &identity, &start,
                     &planRow, &slotPlan, &hidden, &partial, &out, &rows}),
               3 * static_cast<double>(plan.active) * gates[0].bytes(), 6.0 * entries * static_cast<double>(size.width * size.ffn));
      }
    }
  }
}
