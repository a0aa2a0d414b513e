// step_plan: tokens, slots, rotations and splits of a mixed step.
#include <cmath>

#include "ops/harness.h"
#include "ops/mla_decode/params.h"
#include "ops/step_plan/params.h"

using namespace longcat;

namespace {

constexpr int kContext = 2000;

/// Two prompt chunks (slots 3 and 0; the second has a token behind it), three decodes (slots 1, 2 and 4), in tensors with room for more.
/// Slot 1 has one row, slot 2 three, of which its cache holds two; slot 4 has reached its limit. Slot 5 is the spare one.
struct Step {
  Tensor counts, tokenIds, promptPositions, seqStart, seqSlot, seqLimit, seqNext, logitRows, invFreq, history, lengths, tokens, positions, rowSlot, cosSin,
      splits, logitPosition, logitToken;
  explicit Step(TestContext& t, int64_t rope)
      : counts(t.i32({8}, {10, 5, 5, 2, 4, -77, 55, 66})),
        tokenIds(t.i32({12}, {11, 12, 13, 21, 22, -1, -1, -1, -1, -1, 5, 5})),
        promptPositions(t.i32({12}, {4, 5, 6, 0, 1, -9, -9, -9, -9, -9, -9, -9})),
        seqStart(t.i32({9}, {0, 3, 5, 6, 9, 10, -1, -1, -1})),
        seqSlot(t.i32({8}, {3, 0, 1, 2, 4, -1, -1, -1})),
        seqLimit(t.i32({8}, {16, 16, 256, 1538, 32, -1, -1, -1})),
        seqNext(t.i32({8}, {-1, 23, -1, -1, -1, -1, -1, -1})),
        logitRows(t.i32({6}, {2, 5, 7, 9, -1, -1})),
        invFreq(t.f32({rope / 2})),
        history(t.i32({6, kContext}, std::vector<int32_t>(6 * kContext, 7))),
        lengths(t.i32({5}, {-9, 255, 1536, -9, 32})),
        tokens(t.i32({12})),
        positions(t.i32({12})),
        rowSlot(t.i32({12})),
        cosSin(t.f32({12, rope})),
        splits(t.i32({24, 2})),
        logitPosition(t.i32({6})),
        logitToken(t.i32({6})) {
    for (int64_t j = 0; j < rope / 2; ++j) reinterpret_cast<float*>(invFreq.data)[j] = std::pow(10000.0f, -2.0f * j / rope);
    auto* ids = reinterpret_cast<int32_t*>(history.data);
    ids[1 * kContext + 255] = 42, ids[2 * kContext + 1536] = 99, ids[2 * kContext + 1537] = 98;
  }
  OpArgs arguments(double scale, double ahead = 0) {
    return args({&counts, &tokenIds, &promptPositions, &seqStart, &seqSlot, &seqLimit, &seqNext, &logitRows, &invFreq, &history, &lengths, &tokens, &positions,
                 &rowSlot, &cosSin, &splits, &logitPosition, &logitToken},
                {scale, ahead});
  }
};

}  // namespace

LONGCAT_TEST(step_plan) {
  for (Isa isa : t.isas()) {
    for (int threads : {1, 3}) {
      Step step(t, 16);
      t.run(isa, "step_plan", step.arguments(1.5), threads);
      t.expectSame("tokens; of decodes from the history", t.integers(step.tokens), {11, 12, 13, 21, 22, 42, 99, 98, 7, 7, -1, -1});
      t.expectSame("slots; rows without a place in the spare one", t.integers(step.rowSlot), {3, 3, 3, 0, 0, 1, 2, 2, 5, 5, -1, -1});
      t.expectSame("positions", t.integers(step.positions), {4, 5, 6, 0, 1, 255, 1536, 1537, 0, 0, -1, -1});
      t.expectSame("lengths", t.integers(step.lengths), {1, 255, 1536, 6, 32});
      t.expectSame("positions of the logits' tokens", t.integers(step.logitPosition), {7, 256, 1538, -1, -1, -1});
      t.expectSame("tokens before them", t.integers(step.logitToken), {13, 42, 98, -1, -1, -1});
      // 256 keys are one split, 1537 and 1538 are seven.
      std::vector<int32_t> splits = t.integers(step.splits);
      splits.resize(34);
      t.expectSame("splits", splits, {5, 0, 6, 0, 6, 1, 6, 2, 6, 3, 6, 4, 6, 5, 6, 6, 7, 0, 7, 1, 7, 2, 7, 3, 7, 4, 7, 5, 7, 6, 8, 0, 9, 0});
      t.expectSame("counts", t.integers(step.counts), {10, 5, 5, 2, 4, 17, 55, 66});

      std::vector<int32_t> history(6 * kContext, 7), got = t.integers(step.history);
      history[3 * kContext + 4] = 11, history[3 * kContext + 5] = 12, history[3 * kContext + 6] = 13;
      history[0] = 21, history[1] = 22, history[2] = 23;
      history[kContext + 255] = 42, history[2 * kContext + 1536] = 99, history[2 * kContext + 1537] = 98;
      t.expectSame("history", got, history);

      const std::vector<float> cosSin = t.floats(step.cosSin), frequency = t.floats(step.invFreq);
      const std::vector<int32_t> positions = t.integers(step.positions);
      std::vector<float> want;
      for (int r = 0; r < 10; ++r) {
        for (int part = 0; part < 2; ++part)
          for (int j = 0; j < 8; ++j) {
            const float angle = static_cast<float>(positions[r]) * frequency[j];
            want.push_back(static_cast<float>(1.5 * (part ? std::sin(double{angle}) : std::cos(double{angle}))));
          }
      }
      t.expectClose("cos and sin", {cosSin.begin(), cosSin.begin() + 10 * 16}, want, 2e-7);
      t.expect(std::isnan(cosSin[10 * 16]), "rotations beyond the live rows are not written");
    }
  }
}

LONGCAT_TEST(step_plan) {
  for (Isa isa : t.isas()) {
    Step step(t, 16);  // decodes alone, one position further, one of them without a slot
    auto* counts = reinterpret_cast<int32_t*>(step.counts.data);
    counts[numRows] = 3, counts[numPrefillRows] = 0, counts[numSequences] = 3, counts[numPrefillSequences] = 0, counts[numLogitRows] = 0;
    for (int i = 0; i < 4; ++i) reinterpret_cast<int32_t*>(step.seqStart.data)[i] = i;
    auto* slots = reinterpret_cast<int32_t*>(step.seqSlot.data);
    slots[0] = 1, slots[1] = -1, slots[2] = 2;
    auto* limits = reinterpret_cast<int32_t*>(step.seqLimit.data);
    limits[0] = 272, limits[2] = 1538;
    t.run(isa, "step_plan", step.arguments(1, 1));
    const std::vector<int32_t> positions = t.integers(step.positions), rowSlot = t.integers(step.rowSlot), tokens = t.integers(step.tokens);
    t.expectSame("positions ahead", {positions.begin(), positions.begin() + 3}, {256, 0, 1537});
    t.expectSame("slots", {rowSlot.begin(), rowSlot.begin() + 3}, {1, 5, 2});
    t.expectSame("tokens", {tokens.begin(), tokens.begin() + 3}, {7, 7, 98});
    t.expectSame("lengths are as they were", t.integers(step.lengths), {-9, 255, 1536, -9, 32});
  }
}

LONGCAT_TEST(step_plan) {
  for (Isa isa : t.isas()) {
    Step step(t, 16);  // without a spare slot, and nobody asks for logits
    Tensor history = t.i32({5, kContext}, std::vector<int32_t>(5 * kContext, 7));
    step.history = history;
    OpArgs arguments = step.arguments(1);
    for (int absent : {7, 16, 17}) arguments.tensor[absent] = nullptr;
    t.run(isa, "step_plan", arguments);
    t.expectSame("every row has a place", t.integers(step.positions), {4, 5, 6, 0, 1, 255, 1536, 1537, 1538, 32, -1, -1});
    t.expectSame("slots", t.integers(step.rowSlot), {3, 3, 3, 0, 0, 1, 2, 2, 2, 4, -1, -1});
  }
}

LONGCAT_TEST(step_plan) {
  Step step(t, 16);
  Tensor few = t.i32({3, 2});
  step.splits = few;
  t.run(Isa::plain, "step_plan", step.arguments(1));
  t.expect(t.integers(step.counts)[numSplits] == 3, "a split list that is too short is never overrun");

  Tensor wrong = t.f32({12});
  OpArgs arguments = step.arguments(1);
  arguments.tensor[2] = &wrong;
  t.expectThrows("a wrong dtype", "INTERNAL", "step_plan: prompt_positions must be contiguous int32 [12], is float32 [12]",
                 [&] { t.run(Isa::plain, "step_plan", arguments); });
  arguments.tensor[2] = nullptr;
  t.expectThrows("a missing tensor", "INTERNAL", "prompt_positions", [&] { t.run(Isa::plain, "step_plan", arguments); });
}

LONGCAT_TEST(step_plan) {
  Step step(t, 64);
  reinterpret_cast<int32_t*>(step.counts.data)[0] = 0;
  reinterpret_cast<int32_t*>(step.counts.data)[1] = 0;
  reinterpret_cast<int32_t*>(step.counts.data)[2] = 0;
  t.run(Isa::plain, "step_plan", step.arguments(1));
  t.expectSame("an empty step writes nothing", t.integers(step.tokens), std::vector<int32_t>(12, -1));
  t.expect(t.integers(step.counts)[numSplits] == 0, "and has no splits");
}
