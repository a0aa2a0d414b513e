// draft_plan of sequences with two rows each. Floor: nothing but a launch.
#include "ops/harness_bench.h"

using namespace longcat;

LONGCAT_BENCH(draft_plan) {
  for (const ModelShape* m : b.models()) {
    for (int64_t S : b.tokens(256)) {
      const auto n = static_cast<int32_t>(S);
      std::vector<int32_t> starts(S + 1), slots(S), positions(2 * S), rowSlots(2 * S);
      for (int32_t s = 0; s <= n; ++s) starts[s] = 2 * s;
      for (int32_t s = 0; s < n; ++s) slots[s] = rowSlots[2 * s] = rowSlots[2 * s + 1] = s, positions[2 * s] = 7, positions[2 * s + 1] = 8;
      const Tensor counts = b.i32({8}, {2 * n, 0, n, 0, 2 * n, 0, 0, 0}), start = b.i32({S + 1}, starts), slot = b.i32({S}, slots);
      const Tensor position = b.i32({2 * S}, positions), rowSlot = b.i32({2 * S}, rowSlots), history = b.i32({S, 64});
      const Tensor lengths = b.i32({S}, std::vector<int32_t>(static_cast<size_t>(S), 9)), following = b.empty(DType::i32, {2 * S});
      const Tensor row = b.empty(DType::i32, {S}), draftSlot = b.empty(DType::i32, {S}), draftPosition = b.empty(DType::i32, {S});
      b.time({m, "two rows each", S, "", 32.0 * static_cast<double>(S), 0}, "draft_plan",
             args({&counts, &start, &slot, &position, &rowSlot, &history, &lengths, &following, &row, &draftSlot, &draftPosition}));
    }
  }
}
