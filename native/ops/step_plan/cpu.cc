// step_plan on the CPU. Trigonometry is libm's, so that every instruction set rotates alike.
#include "ops/step_plan/params.h"

#include <math.h>

#include "ops/mla_decode/params.h"
#include "ops/op.h"

namespace longcat::LONGCAT_ISA {
namespace {

int64_t clampCount(int32_t value, int64_t limit) { return value < 0 ? 0 : value < limit ? value : limit; }

/// Rows of a sequence take its slot.
void planSlots(const StepPlanParams& p, int64_t rows) {
  const int64_t sequences = clampCount(p.counts[numSequences], p.maxSequences);
  for (int64_t s = 0; s < sequences; ++s) {
    const int64_t end = clampCount(p.seqStart[s + 1], rows);
    for (int64_t r = clampCount(p.seqStart[s], rows); r < end; ++r) p.rowSlot[r] = p.seqSlot[s];
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

void planToken(const StepPlanParams& p, int64_t r) {
  const int64_t position = p.positions[r];
  if (position < 0 || position >= p.historyStride) {
    p.tokens[r] = p.tokenIds[r] < 0 ? 0 : p.tokenIds[r];
    return;
  }
  int32_t& entry = p.history[p.rowSlot[r] * p.historyStride + position];
  if (p.tokenIds[r] >= 0) entry = p.tokenIds[r];
  p.tokens[r] = entry;
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
  planSlots(p, rows);
  planSplits(p, rows);
  for (int64_t r = 0; r < rows; ++r) planToken(p, r);
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
