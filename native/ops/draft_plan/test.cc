// draft_plan: prompts with and without a draw, decodes that accepted none, some and all of their drafts, and one without a place.
#include "ops/harness.h"
#include "ops/step_plan/params.h"

using namespace longcat;

LONGCAT_TEST(draft_plan) {
  // slot 0: two of a prompt's tokens, no draw; 1: a prompt's last three, drawn; 2: three rows at 6, nothing accepted; 3: at 2, one accepted;
  // 4: at 0, two accepted; 5: the context's end, in the spare slot 6.
  const int64_t context = 10;
  std::vector<int32_t> history(7 * context);
  for (size_t i = 0; i < history.size(); ++i) history[i] = static_cast<int32_t>(100 * (i / context) + i % context);
  const Tensor counts = t.i32({8}, {16, 5, 6, 2, 0, 0, 0, 0}), start = t.i32({8}, {0, 2, 5, 8, 11, 14, 16, -9}), slot = t.i32({7}, {0, 1, 2, 3, 4, 5, -9});
  const Tensor positions = t.i32({18}, {0, 1, 5, 6, 7, 6, 7, 8, 2, 3, 4, 0, 1, 2, 0, 0, -9, -9});
  const Tensor rowSlot = t.i32({18}, {0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 6, 6, -9, -9});
  const Tensor histories = t.i32({7, context}, history), lengths = t.i32({6}, {1, 8, 7, 4, 3, 10});
  const Tensor following = t.i32({18}), row = t.i32({7}), draftSlot = t.i32({7}), position = t.i32({7});
  for (Isa isa : t.isas()) {
    t.run(isa, "draft_plan", args({&counts, &start, &slot, &positions, &rowSlot, &histories, &lengths, &following, &row, &draftSlot, &position}));
    t.expectSame("following", t.integers(following), {1, 2, 106, 107, 108, 207, 208, 209, 303, 304, 305, 401, 402, 403, 601, 601, -1, -1});
    t.expectSame("rows", t.integers(row), {0, 4, 5, 9, 13, 14, -1});
    t.expectSame("slots", t.integers(draftSlot), {-1, 1, 2, 3, 4, -1, -1});
    t.expectSame("positions", t.integers(position), {-1, 9, 8, 5, 4, -1, -1});
  }
}

LONGCAT_TEST(draft_plan) {
  // The last token of a context is followed by nothing.
  const Tensor counts = t.i32({8}, {1, 0, 1, 0, 0, 0, 0, 0}), start = t.i32({2}, {0, 1}), slot = t.i32({1}, {0}), positions = t.i32({1}, {3});
  const Tensor rowSlot = t.i32({1}, {0}), history = t.i32({1, 4}, {5, 6, 7, 8}), lengths = t.i32({1}, {4});
  const Tensor following = t.i32({1}), row = t.i32({1}), draftSlot = t.i32({1}), position = t.i32({1});
  for (Isa isa : t.isas()) {
    t.run(isa, "draft_plan", args({&counts, &start, &slot, &positions, &rowSlot, &history, &lengths, &following, &row, &draftSlot, &position}));
    t.expectSame("following", t.integers(following), {0});
    t.expectSame("draft", {t.integers(row)[0], t.integers(draftSlot)[0], t.integers(position)[0]}, {0, 0, 5});
  }
}
