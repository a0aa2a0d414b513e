// step_plan: tokens, slots, rotations and splits of a mixed step.
#include <cmath>

#include "ops/harness.h"
#include "ops/mla_decode/params.h"
#include "ops/step_plan/params.h"

using namespace longcat;

namespace {

constexpr int kContext = 2000;

/// Two prompt chunks (slots 3 and 0), two decode rows (slots 1 and 2), in tensors with room for more.
struct Step {
  Tensor counts, tokenIds, positions, seqStart, seqSlot, invFreq, history, tokens, rowSlot, cosSin, splits;
  explicit Step(TestContext& t, int64_t rope)
      : counts(t.i32({8}, {7, 5, 4, 2, 0, -77, 55, 66})),
        tokenIds(t.i32({10}, {11, 12, 13, 21, 22, -1, 99, 5, 5, 5})),
        positions(t.i32({10}, {4, 5, 6, 0, 1, 255, 1536, -9, -9, -9})),
        seqStart(t.i32({9}, {0, 3, 5, 6, 7, -1, -1, -1, -1})),
        seqSlot(t.i32({8}, {3, 0, 1, 2, -1, -1, -1, -1})),
        invFreq(t.f32({rope / 2})),
        history(t.i32({4, kContext}, std::vector<int32_t>(4 * kContext, 7))),
        tokens(t.i32({10})),
        rowSlot(t.i32({10})),
        cosSin(t.f32({10, rope})),
        splits(t.i32({12, 2})) {
    for (int64_t j = 0; j < rope / 2; ++j) reinterpret_cast<float*>(invFreq.data)[j] = std::pow(10000.0f, -2.0f * j / rope);
    reinterpret_cast<int32_t*>(history.data)[1 * kContext + 255] = 42;
  }
  OpArgs arguments(double scale) {
    return args({&counts, &tokenIds, &positions, &seqStart, &seqSlot, &invFreq, &history, &tokens, &rowSlot, &cosSin, &splits}, {scale});
  }
};

}  // namespace

LONGCAT_TEST(step_plan) {
  for (Isa isa : t.isas()) {
    for (int threads : {1, 3}) {
      Step step(t, 16);
      t.run(isa, "step_plan", step.arguments(1.5), threads);
      std::vector<int32_t> tokens = t.integers(step.tokens), slots = t.integers(step.rowSlot), splits = t.integers(step.splits);
      t.expectSame("tokens; the sampled one from the history", {tokens.begin(), tokens.begin() + 7}, {11, 12, 13, 21, 22, 42, 99});
      t.expectSame("slots", {slots.begin(), slots.begin() + 7}, {3, 3, 3, 0, 0, 1, 2});
      t.expect(tokens[7] == -1 && slots[7] == -1, "rows beyond the live ones are not written");
      // 256 keys are one split, 1537 are seven.
      t.expectSame("splits", {splits.begin(), splits.begin() + 16}, {5, 0, 6, 0, 6, 1, 6, 2, 6, 3, 6, 4, 6, 5, 6, 6});
      t.expectSame("counts", t.integers(step.counts), {7, 5, 4, 2, 0, 8, 55, 66});

      std::vector<int32_t> history(4 * kContext, 7), got = t.integers(step.history);
      history[3 * kContext + 4] = 11, history[3 * kContext + 5] = 12, history[3 * kContext + 6] = 13;
      history[0] = 21, history[1] = 22, history[kContext + 255] = 42, history[2 * kContext + 1536] = 99;
      t.expectSame("history", got, history);

      const std::vector<float> cosSin = t.floats(step.cosSin), frequency = t.floats(step.invFreq);
      const std::vector<int32_t> positions = t.integers(step.positions);
      std::vector<float> want;
      for (int r = 0; r < 7; ++r) {
        for (int part = 0; part < 2; ++part)
          for (int j = 0; j < 8; ++j) {
            const float angle = static_cast<float>(positions[r]) * frequency[j];
            want.push_back(static_cast<float>(1.5 * (part ? std::sin(double{angle}) : std::cos(double{angle}))));
          }
      }
      t.expectClose("cos and sin", {cosSin.begin(), cosSin.begin() + 7 * 16}, want, 2e-7);
      t.expect(std::isnan(cosSin[7 * 16]), "rotations beyond the live rows are not written");
    }
  }
}

LONGCAT_TEST(step_plan) {
  Step step(t, 16);
  Tensor few = t.i32({3, 2});
  step.splits = few;
  t.run(Isa::plain, "step_plan", step.arguments(1));
  t.expect(t.integers(step.counts)[numSplits] == 3, "a split list that is too short is never overrun");

  Tensor wrong = t.f32({10});
  OpArgs arguments = step.arguments(1);
  arguments.tensor[2] = &wrong;
  t.expectThrows("a wrong dtype", "INTERNAL", "step_plan: positions must be contiguous int32 [10], is float32 [10]",
                 [&] { t.run(Isa::plain, "step_plan", arguments); });
  arguments.tensor[2] = nullptr;
  t.expectThrows("a missing tensor", "INTERNAL", "positions", [&] { t.run(Isa::plain, "step_plan", arguments); });
}

LONGCAT_TEST(step_plan) {
  Step step(t, 64);
  reinterpret_cast<int32_t*>(step.counts.data)[0] = 0;
  reinterpret_cast<int32_t*>(step.counts.data)[1] = 0;
  reinterpret_cast<int32_t*>(step.counts.data)[2] = 0;
  t.run(Isa::plain, "step_plan", step.arguments(1));
  t.expectSame("an empty step writes nothing", t.integers(step.tokens), std::vector<int32_t>(10, -1));
  t.expect(t.integers(step.counts)[numSplits] == 0, "and has no splits");
}
