// draft_plan on the CPU: some numbers a row.
#include "ops/draft_plan/plan.h"
#include "ops/op.h"

namespace longcat::LONGCAT_ISA {

void draft_plan(const void* params, const CpuContext&) {
  const auto& p = *static_cast<const DraftPlanParams*>(params);
  const int64_t rows = p.counts[numRows] < p.capacity ? p.counts[numRows] : p.capacity;
  const int64_t sequences = p.counts[numSequences] < p.maxSequences ? p.counts[numSequences] : p.maxSequences;
  for (int64_t r = 0; r < rows; ++r) p.following[r] = followingToken(p, r);
  for (int64_t s = 0; s < sequences; ++s) {
    const DraftPlace place = draftPlace(p, s);
    p.draftRow[s] = place.row;
    p.draftSlot[s] = place.slot;
    p.draftPosition[s] = place.position;
  }
}

}  // namespace longcat::LONGCAT_ISA
