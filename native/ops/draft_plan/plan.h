// Where a sequence's next draft comes from, and which token follows a row: pure.
#pragma once

#include "ops/draft_plan/params.h"
#include "ops/step_plan/params.h"
#include "runtime/anywhere.h"

namespace longcat {

struct DraftPlace {
  int32_t row, slot, position;
};

LONGCAT_ANYWHERE inline DraftPlace draftPlace(const DraftPlanParams& p, int64_t s) {
  const int32_t slot = p.seqSlot[s], begin = p.seqStart[s], end = p.seqStart[s + 1];
  const DraftPlace none{begin, -1, -1};
  if (slot < 0 || end <= begin || p.rowSlot[begin] != slot) return none;
  const int32_t newest = p.lengths[slot], first = p.positions[begin];
  const bool drew = newest > (s < p.counts[numPrefillSequences] ? p.positions[end - 1] : first);
  return drew ? DraftPlace{begin + newest - 1 - first, slot, newest + 1} : none;
}

LONGCAT_ANYWHERE inline int32_t followingToken(const DraftPlanParams& p, int64_t r) {
  const int64_t position = p.positions[r] + int64_t{1};
  return position < p.historyStride ? p.history[p.rowSlot[r] * p.historyStride + position] : 0;
}

}  // namespace longcat
