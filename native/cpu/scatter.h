// Rows added to a table by id: the gradient of a gather.
#pragma once

#include "cpu/gemm_gradients.h"
#include "cpu/math.h"

namespace longcat::LONGCAT_ISA {

/// table[idOf(r)] += factor · from.at(r) for r in [0, rows), ascending. A task takes some columns of every row: rows that name the same id
/// meet in no other order, on whatever thread.
template <class Id>
LONGCAT_INLINE void addRowsById(const CpuContext& context, const Rows& from, int64_t rows, int64_t columns, const Id& idOf, float factor, float* table) {
  forColumnStrips(context, columns, [&](int64_t begin, int64_t count) {
    for (int64_t r = 0; r < rows; ++r) {
      const float* row = from.at(r) + begin;
      float* to = table + idOf(r) * columns + begin;
      forLanes(count, [&](int64_t k, int n) { storeN(to + k, fma(set1(factor), loadN(row + k, n), loadN(to + k, n)), n); });
    }
  });
}

}  // namespace longcat::LONGCAT_ISA
