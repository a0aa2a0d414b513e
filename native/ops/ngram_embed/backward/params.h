// ngram_embed_backward: of out = (E[t_0] + Σ_i P_i T_i[id_i]) / (1 + tables).
//   d = dout / (1 + tables);  dE[t_0] += d;  dP_i += dᵀ T_i[id_i];  dT_i[id_i] += d P_i        (tokens ascending)
// Ids are hashed again from the history (plan.h of the forward).
#pragma once
#include "ops/trainable.h"
namespace longcat {

constexpr int kMaxTrainedNgramTables = 22;  // four tensors each, of the 96 that an operation may name

// tensors: positions, row_slot, history, d_word_table, d_out, rows,
//          tables... (table 0, its gradient, projection 0, its gradient, table 1, …)
// scalars: neighbors, splits, end_id
struct NgramEmbedBackwardParams {
  const int32_t* positions;   // [T]
  const int32_t* rowSlot;     // [T]
  const int32_t* history;     // [slots, context]
  int64_t historyStride;
  float* dWordTable;          // [V, hidden], added to
  const float* dOut;          // [T, hidden]
  const int32_t* rows;        // [1]
  int64_t capacity, vocabulary, hidden, width;
  int32_t neighbors, splits, endId, numTables;
  struct Table {
    const float* rows;        // [M_i, width]
    float* dRows;
    const float* projection;  // [hidden, width]
    float* dProjection;
    int64_t count;            // M_i
  } tables[kMaxTrainedNgramTables];
};

}  // namespace longcat
