// The hashed ids of a token's n-grams: pure, 64-bit whole numbers (params.h has the formula).
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/anywhere.h"

namespace longcat {

/// The tables of an n-gram embedding. Table i belongs to order i / splits + 2.
struct NgramTables {
  int64_t vocabulary;
  int32_t neighbors, splits, endId, numTables;
};

/// `id` of one table of `rows` rows, for the token at history[position]. An end-of-text id in [position - d, position - 1] hides
/// the token d back, as does the sequence's start. Products stay below 2^63: each factor is reduced first.
LONGCAT_ANYWHERE static inline int64_t ngramId(const int32_t* history, int64_t position, const NgramTables& tables, int order, int64_t rows) {
  const auto reduced = [rows](int64_t n) { return n < rows ? n : n % rows; };  // divisions are slow, on a GPU most of all, and seldom needed
  int64_t id = reduced(history[position]), power = 1;
  for (int d = 1; d < order; ++d) {
    if (position - d < 0 || history[position - d] == tables.endId) break;  // whatever is further back is hidden as well
    power = reduced(power * reduced(tables.vocabulary));
    id = reduced(id + reduced(history[position - d]) * power);
  }
  return id;
}

/// ids[i] for all tables; rowsOf(i) is table i's number of rows (below 2^31).
template <class Rows>
static inline void ngramIds(const int32_t* history, int64_t position, const NgramTables& tables, const Rows& rowsOf, int64_t* ids) {
  for (int i = 0; i < tables.numTables; ++i) ids[i] = ngramId(history, position, tables, i / tables.splits + 2, rowsOf(i));
}

constexpr int64_t kNgramRows = 48, kNgramOutputs = 64;  // of one tile of the projection

/// A thread's scratch, in floats: gathered table rows, one table's projection of a tile.
static inline size_t ngramScratchBytes(int64_t tableWidth) {
  return static_cast<size_t>(kNgramRows * (tableWidth + kNgramOutputs)) * sizeof(float);
}

}  // namespace longcat
