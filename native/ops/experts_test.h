// What tests of the experts share: random experts, choices of them, and the plan that moe_route makes of choices.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "ops/reference.h"

namespace longcat::reference {

struct Experts {
  Stack gate, up, down;
  int64_t count() const { return gate.data.shape[0]; }
};
inline Experts randomExperts(OpContext& t, DType dtype, int64_t count, int64_t width, int64_t ffn) {
  return {randomStack(t, dtype, count, ffn, width), randomStack(t, dtype, count, ffn, width), randomStack(t, dtype, count, width, ffn)};
}

/// Experts [first, first + count) of a stack, as a rank holds them.
inline Tensor partsOf(const Tensor& stack, int64_t first, int64_t count) {
  Tensor some = stack;
  if (!stack.parts) return some;  // no scales
  some.shape[0] = count;
  struct Held {
    std::shared_ptr<const std::vector<const std::byte*>> all;  // and the memory behind them
    std::vector<const std::byte*> some;
  };
  const auto held = std::make_shared<Held>(Held{stack.parts, {stack.parts->begin() + first, stack.parts->begin() + first + count}});
  some.parts = std::shared_ptr<const std::vector<const std::byte*>>(held, &held->some);
  return some;
}

/// What moe_route leaves: the plan of given choices. ids[t][slot] ascending; ids from `experts` on are zero experts.
struct Routing {
  std::vector<float> weights, identity;
  std::vector<int32_t> start, planRow, slotPlan;
};
inline Routing planOf(const std::vector<std::vector<int32_t>>& ids, const std::vector<float>& weights, int32_t experts) {
  const size_t topK = ids[0].size();
  Routing r{weights, std::vector<float>(ids.size()), {0}, {}, std::vector<int32_t>(weights.size(), -1)};
  for (int32_t e = 0; e < experts; ++e) {
    for (size_t row = 0; row < ids.size(); ++row) {
      for (size_t slot = 0; slot < topK; ++slot) {
        if (ids[row][slot] != e) continue;
        r.slotPlan[row * topK + slot] = static_cast<int32_t>(r.planRow.size());
        r.planRow.push_back(static_cast<int32_t>(row));
      }
    }
    r.start.push_back(static_cast<int32_t>(r.planRow.size()));
  }
  for (size_t row = 0; row < ids.size(); ++row) {
    for (size_t slot = 0; slot < topK; ++slot) r.identity[row] += ids[row][slot] >= experts ? weights[row * topK + slot] : 0.0f;
  }
  r.planRow.resize(weights.size(), 123456789);  // never read
  return r;
}

/// `topK` different ids of [from, from + all) for each row, ascending.
inline std::vector<std::vector<int32_t>> randomChoices(OpContext& t, int64_t rows, int64_t topK, int32_t all, int32_t from = 0) {
  std::vector<std::vector<int32_t>> ids(static_cast<size_t>(rows));
  for (auto& row : ids) {
    while (static_cast<int64_t>(row.size()) < topK) {
      const auto id = from + static_cast<int32_t>(t.randomInteger(all));
      if (std::find(row.begin(), row.end(), id) == row.end()) row.push_back(id);
    }
    std::sort(row.begin(), row.end());
  }
  return ids;
}

}  // namespace longcat::reference
