// Where a decode row runs: pure.
#pragma once

#include "ops/step_plan/params.h"
#include "runtime/anywhere.h"

namespace longcat {

/// A slot, and a position in its history and cache.
struct RowPlace {
  int32_t slot, position;
};

/// Row j of a sequence that decodes in `slot` (-1: none) and has cache for `limit` positions. Without a spare slot every row has a place.
LONGCAT_ANYWHERE inline RowPlace decodePlace(const StepPlanParams& p, int32_t slot, int32_t limit, int32_t j) {
  const int32_t position = slot >= 0 ? p.lengths[slot] + p.ahead + j : 0;
  const bool hasPlace = slot >= 0 && position < limit;
  return hasPlace || p.spareSlot < 0 ? RowPlace{slot, position} : RowPlace{p.spareSlot, 0};
}

/// The token there; beyond the history, where nothing that counts runs, any.
LONGCAT_ANYWHERE inline int32_t tokenAt(const StepPlanParams& p, RowPlace place) {
  return place.position < p.historyStride ? p.history[place.slot * p.historyStride + place.position] : 0;
}

}  // namespace longcat
