// moe_experts at each model's expert sizes. All experts: K choices a token, a third of them zero experts. And as a GPU of several sees it, which
// holds some of the experts: so many rows an expert, thrown at random; of these also the products alone, with the room that ranks keep for the
// worst case. Floor: the bytes of the experts that have rows, and their rows' products. Where not all experts' matrices fit, several share one.
#include <algorithm>
#include "ops/harness_bench.h"

using namespace longcat;

namespace {

/// Which rows the experts have, as moe_route leaves it.
struct Plan {
  int64_t tokens = 0, slots = 0;
  std::vector<int32_t> start{0}, planRow, slotPlan;
  int64_t active = 0, entries = 0;
};

struct Entry { int32_t row, slot; };

Plan planOf(const std::vector<std::vector<Entry>>& ofExperts, int64_t tokens, int64_t slots) {
  Plan plan;
  plan.tokens = tokens, plan.slots = slots;
  plan.slotPlan.assign(static_cast<size_t>(tokens * slots), -1);
  for (const auto& entries : ofExperts) {
    for (const Entry& e : entries) {
      plan.slotPlan[static_cast<size_t>(e.row * slots + e.slot)] = static_cast<int32_t>(plan.planRow.size());
      plan.planRow.push_back(e.row);
    }
    plan.active += !entries.empty();
    plan.start.push_back(static_cast<int32_t>(plan.planRow.size()));
  }
  plan.entries = static_cast<int64_t>(plan.planRow.size());
  plan.planRow.resize(static_cast<size_t>(tokens * slots));
  return plan;
}

/// Slot s of token t takes expert (t · 7 + s · 5) mod experts; the last third of its slots are zero experts.
Plan allExperts(const ModelShape& m, int64_t tokens) {
  std::vector<std::vector<Entry>> of(static_cast<size_t>(m.experts));
  for (int32_t r = 0; r < tokens; ++r) {
    for (int32_t s = 0; s < m.topK - m.topK / 3; ++s) of[static_cast<size_t>((r * 7 + s * 5) % m.experts)].push_back({r, s});
  }
  return planOf(of, tokens, m.topK);
}

/// As many rows as `each` for an expert, each thrown to one of them.
Plan heldExperts(BenchContext& b, int64_t experts, int64_t each) {
  std::vector<std::vector<Entry>> of(static_cast<size_t>(experts));
  for (int32_t r = 0; r < experts * each; ++r) of[static_cast<size_t>(b.randomInteger(experts))].push_back({r, 0});
  return planOf(of, experts * each, 1);
}

struct Experts {
  bench::Weight gate, up, down;
  int64_t count;

  Experts first(int64_t n) const {
    Experts some = *this;
    some.count = n;
    for (bench::Weight* w : {&some.gate, &some.up, &some.down}) {
      for (Tensor* t : {&w->data, &w->scale}) {
        if (!t->parts) continue;
        t->shape[0] = n;
        t->parts = std::make_shared<std::vector<const std::byte*>>(t->parts->begin(), t->parts->begin() + n);
      }
    }
    return some;
  }
};

void timePlan(BenchContext& b, const ModelShape& m, DType dtype, const Experts& e, const Plan& plan, const std::string& experts) {
  const int64_t width = m.hidden, ffn = m.expertFfn, T = plan.tokens, K = plan.slots;
  const double flops = 6.0 * static_cast<double>(plan.entries) * static_cast<double>(width * ffn);
  if (b.tooMuch(flops)) return;
  const Tensor h = b.randomActivations({T, width}), weights = b.random(DType::f32, {T, K}, 0, 1), identity = b.random(DType::f32, {T}, 0, 1);
  const Tensor start = b.i32({e.count + 1}, plan.start), planRow = b.i32({T * K}, plan.planRow), slotPlan = b.i32({T, K}, plan.slotPlan);
  const Tensor hidden = b.activations({T * K, ffn}), partial = b.activations({T * K, width}), out = b.activations({T, width});
  const Tensor rows = b.i32({1}, {static_cast<int32_t>(T)});
  const double bytes = 3.0 * static_cast<double>(plan.active * width * ffn) * static_cast<double>(bytesOf(dtype)) +
                       2.0 * static_cast<double>(T * width) * static_cast<double>(bytesOf(b.activation()));
  b.time({&m, std::to_string(width) + " to " + std::to_string(ffn) + ", " + experts, T, shortName(dtype), bytes, flops}, "moe_experts",
         args({&h, &e.gate.data, e.gate.scales(), &e.up.data, e.up.scales(), &e.down.data, e.down.scales(), &weights, &identity, &start, &planRow, &slotPlan,
               &hidden, &partial, &out, &rows}, {0}));
}

/// The same rows as ep_dispatch leaves them on one of the ranks that hold so many experts each: no sum, and room for the rows of all ranks. A rank has as
/// many tokens as make so many rows when all experts are chosen alike.
void timeShare(BenchContext& b, const ModelShape& m, DType dtype, const Experts& e, const Plan& plan) {
  const int64_t width = m.hidden, ffn = m.expertFfn, perToken = m.topK * m.experts;
  const int64_t T = (plan.entries * (m.experts + m.zeroExperts) + perToken - 1) / perToken, room = m.experts / e.count * T * std::min(m.topK, e.count);
  const double flops = 6.0 * static_cast<double>(plan.entries) * static_cast<double>(width * ffn);
  if (b.tooMuch(flops) || static_cast<double>(room * (width + ffn)) * static_cast<double>(bytesOf(b.activation())) > b.weightBudget() / 16) return;
  std::vector<int32_t> padded = plan.planRow;
  padded.resize(static_cast<size_t>(room));
  const Tensor h = b.randomActivations({plan.tokens, width}), start = b.i32({e.count + 1}, plan.start), planRow = b.i32({room}, padded);
  const Tensor hidden = b.activations({room, ffn}), partial = b.activations({room, width});
  const double bytes = 3.0 * static_cast<double>(plan.active * width * ffn) * static_cast<double>(bytesOf(dtype)) +
                       2.0 * static_cast<double>(plan.entries * width) * static_cast<double>(bytesOf(b.activation()));
  const std::string shape = std::to_string(width) + " to " + std::to_string(ffn) + ", " + std::to_string(plan.active) + " of " + std::to_string(e.count) + " held, products";
  b.time({&m, shape, plan.entries, shortName(dtype), bytes, flops}, "moe_experts",
         args({&h, &e.gate.data, e.gate.scales(), &e.up.data, e.up.scales(), &e.down.data, e.down.scales(), nullptr, nullptr, &start, &planRow, nullptr, &hidden,
               &partial, nullptr, nullptr}, {static_cast<double>(T * m.topK)}));
}

}  // namespace

LONGCAT_BENCH(moe_experts) {
  for (const ModelShape* m : b.models()) {
    for (DType dtype : b.weightDtypes(*m)) {
      const int64_t width = m->hidden, ffn = m->expertFfn;
      const double expertBytes = 3.0 * static_cast<double>(width * ffn) * static_cast<double>(bytesOf(dtype));
      const int64_t stored = std::clamp<int64_t>(static_cast<int64_t>(b.weightBudget() / expertBytes), 1, m->experts);
      const Experts experts{b.stack(dtype, m->experts, stored, ffn, width), b.stack(dtype, m->experts, stored, ffn, width),
                            b.stack(dtype, m->experts, stored, width, ffn), m->experts};
      for (int64_t T : b.tokens()) {
        const Plan plan = allExperts(*m, T);
        timePlan(b, *m, dtype, experts, plan, std::to_string(plan.active) + " experts");
      }
      for (int64_t held : {64, 16, 4}) {
        if (!b.onGpu() || held >= std::min(stored, m->experts)) continue;
        for (int64_t each : b.tokens(512)) {
          const Plan plan = heldExperts(b, held, each);
          const Experts own = experts.first(held);
          timePlan(b, *m, dtype, own, plan, std::to_string(plan.active) + " of " + std::to_string(held) + " held");
          if (m->experts % held == 0) timeShare(b, *m, dtype, own, plan);
        }
      }
    }
  }
}
