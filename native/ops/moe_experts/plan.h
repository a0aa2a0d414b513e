// Which tasks a grouped product has: the outputs of each expert with rows, cut by what those rows cost.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/swiglu_plan.h"

namespace longcat {

/// Tasks [first, the next one's first) are chunks of `chunk` outputs of `expert`.
struct ExpertTasks {
  int32_t expert;
  int32_t chunk;
  int64_t first;
};

/// Thread 0 keeps the list behind its tile: one entry an expert and one that ends it.
static inline size_t expertScratchBytes(int64_t experts) {
  return kSwigluScratchBytes + static_cast<size_t>(experts + 1) * sizeof(ExpertTasks);
}

/// Fills `list` in ascending experts and returns the number of those that have rows; list[that number].first is the number of tasks.
/// `productsOf(rows)` is the cost of an expert with that many rows. A task is worth `least`, and tasks are about `wanted` in all.
template <class Cost>
static inline int64_t planExpertTasks(const int32_t* expertStart, int64_t experts, int64_t outputs, int64_t wanted, int64_t least,
                                      const Cost& productsOf, ExpertTasks* list) {
  int64_t total = 0;
  for (int64_t e = 0; e < experts; ++e) {
    if (expertStart[e + 1] > expertStart[e]) total += productsOf(expertStart[e + 1] - expertStart[e]);
  }
  const int64_t perTask = total / wanted > least ? total / wanted : least;
  int64_t active = 0, tasks = 0;
  for (int64_t e = 0; e < experts; ++e) {
    const int64_t rows = expertStart[e + 1] - expertStart[e];
    if (rows <= 0) continue;
    const int64_t pieces = (productsOf(rows) + perTask - 1) / perTask;
    const int64_t chunk = ((outputs + pieces - 1) / pieces + 15) / 16 * 16;
    list[active++] = {static_cast<int32_t>(e), static_cast<int32_t>(chunk), tasks};
    tasks += (outputs + chunk - 1) / chunk;
  }
  list[active] = {-1, 0, tasks};
  return active;
}

/// The entry that task belongs to: the last whose first is not above it.
static inline const ExpertTasks& expertOfTask(const ExpertTasks* list, int64_t active, int64_t task) {
  int64_t low = 0, high = active;
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    if (list[middle].first <= task) low = middle;
    else high = middle;
  }
  return list[low];
}

}  // namespace longcat
