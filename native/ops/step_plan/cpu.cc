// step_plan on the CPU. Trigonometry is libm's, so that every instruction set rotates alike.
#include "ops/step_plan/params.h"

#include <math.h>

#include "ops/mla_decode/params.h"
#include "ops/op.h"
#include "ops/step_plan/plan.h"

namespace longcat::LONGCAT_ISA {
namespace {

int64_t clampCount(int32_t value, int64_t limit) { return value < 0 ? 0 : value < limit ? value : limit; }

/// A prompt's chunk: its tokens go into the history, and what follows it.
void planPrompt(const StepPlanParams& p, int64_t s, int64_t begin, int64_t end) {
  const int32_t slot = p.seqSlot[s];
  int32_t* history = p.history + slot * p.historyStride;
  const auto remember = [&](int64_t position, int32_t token) {
    if (position >= 0 && position < p.historyStride) history[position] = token;
  };
  for (int64_t r = begin; r < end; ++r) {
    p.rowSlot[r] = slot;
    p.positions[r] = p.promptPositions[r];
    p.tokens[r] = p.tokenIds[r];
    remember(p.positions[r], p.tokens[r]);
  }
  if (begin == end) return;
  p.lengths[slot] = p.positions[end - 1];
  if (p.seqNext[s] >= 0) remember(p.positions[end - 1] + int64_t{1}, p.seqNext[s]);
}

/// A decode's rows: the newest token and the drafts behind it.
void planDecode(const StepPlanParams& p, int64_t s, int64_t begin, int64_t end) {
  const int32_t slot = p.seqSlot[s];
  for (int64_t r = begin; r < end; ++r) {
    const RowPlace place = decodePlace(p, slot, p.seqLimit[s], static_cast<int32_t>(r - begin));
    p.rowSlot[r] = place.slot;
    p.positions[r] = place.position;
    p.tokens[r] = tokenAt(p, place);
  }
}

/// Slot, position and token of each row.
void planRows(const StepPlanParams& p, int64_t rows) {
  const int64_t sequences = clampCount(p.counts[numSequences], p.maxSequences), prompts = clampCount(p.counts[numPrefillSequences], sequences);
  for (int64_t s = 0; s < sequences; ++s) {
    const int64_t begin = clampCount(p.seqStart[s], rows), end = clampCount(p.seqStart[s + 1], rows);
    if (s < prompts) planPrompt(p, s, begin, end);
    else planDecode(p, s, begin, end);
  }
}

void planSplits(const StepPlanParams& p, int64_t rows) {
  int64_t n = 0;
  for (int64_t r = clampCount(p.counts[numPrefillRows], rows); r < rows; ++r) {
    const int64_t splits = p.positions[r] / kSplitKeys + 1;
    for (int64_t s = 0; s < splits && n < p.maxSplits; ++s, ++n) {
      p.splits[2 * n] = static_cast<int32_t>(r);
      p.splits[2 * n + 1] = static_cast<int32_t>(s);
    }
  }
  p.counts[numSplits] = static_cast<int32_t>(n);
}

/// Where each row of logits comes from.
void planLogits(const StepPlanParams& p, int64_t rows) {
  const int64_t live = p.logitRows ? clampCount(p.counts[numLogitRows], p.maxLogitRows) : 0;
  for (int64_t i = 0; i < live; ++i) {
    const int64_t r = p.logitRows[i];
    const bool hasPlace = r >= 0 && r < rows && p.rowSlot[r] != p.spareSlot;
    p.logitPosition[i] = hasPlace ? p.positions[r] + 1 : -1;
    p.logitToken[i] = hasPlace ? p.tokens[r] : -1;
  }
}

void planRotation(const StepPlanParams& p, int64_t r) {
  const int64_t half = p.rope / 2;
  float* out = p.cosSin + r * p.rope;
  const float position = static_cast<float>(p.positions[r]);
  for (int64_t j = 0; j < half; ++j) {
    const float angle = position * p.invFreq[j];
    out[j] = cosf(angle) * p.rotaryScale;
    out[half + j] = sinf(angle) * p.rotaryScale;
  }
}

constexpr int64_t kRowsPerTask = 4;  // one row's angles take some microseconds: about what waking a thread costs

}  // namespace

void step_plan(const void* params, const CpuContext& context) {
  const auto& p = *static_cast<const StepPlanParams*>(params);
  const int64_t rows = clampCount(p.counts[numRows], p.capacity);
  planRows(p, rows);
  planSplits(p, rows);
  planLogits(p, rows);
  if (rows <= kRowsPerTask) {
    for (int64_t r = 0; r < rows; ++r) planRotation(p, r);
    return;
  }
  context.pool.parallelFor((rows + kRowsPerTask - 1) / kRowsPerTask, [&](int64_t task, int) {
    const int64_t end = (task + 1) * kRowsPerTask;
    for (int64_t r = task * kRowsPerTask; r < end && r < rows; ++r) planRotation(p, r);
  });
}

}  // namespace longcat::LONGCAT_ISA
