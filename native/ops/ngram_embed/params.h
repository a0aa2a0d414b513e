// ngram_embed (LongCat-Flash-Lite): word embedding and hashed n-gram embeddings, averaged (docs/model.md, 7).
//   order N in 2..neighbors, split j in 0..splits-1: table i = (N-2)·splits + j with M_i = table i's rows
//   id_i = (t_0 + Σ_{d=1}^{N-1} t_{-d} · (V^d mod M_i)) mod M_i, in int64; t_{-d} = 0 before the sequence's start, or when an
//   end-of-text id lies in [pos-d, pos-1]
//   out = (E[t_0] + Σ_i P_i T_i[id_i]) / (1 + tables), summed in ascending i
#pragma once
#include "ops/weight.h"
namespace longcat {

constexpr int kMaxNgramTables = 40;

// tensors: positions, row_slot, history, word_table, out, rows, table/projection... (table 0, projection 0, table 1, …)
// scalars: neighbors, splits, end_id (the id that breaks n-grams: 2)
struct NgramEmbedParams {
  const int32_t* positions;   // [T] position of each row in its sequence
  const int32_t* rowSlot;     // [T] engine slot of each row
  const int32_t* history;     // [slots, context] token ids of each slot's sequence; entry [slot][position] is the row's own token
  int64_t historyStride;
  WeightView wordTable;       // [V, hidden] f32 or bf16
  float* out;                 // [T, hidden] contiguous
  const int32_t* rows;        // [1]
  int64_t capacity;           // T
  int32_t neighbors, splits, endId, numTables;
  WeightView tables[kMaxNgramTables];       // [M_i, hidden/numTables]; may be mapped files of many GB: touch only the rows asked for
  const void* projectionData[kMaxNgramTables];  // [hidden, hidden/numTables], all of projectionDtype
  DType projectionDtype;
};

}  // namespace longcat
