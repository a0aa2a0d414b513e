// embed_backward: dtable[token[t]] += dout[t], tokens ascending.
#pragma once
#include "ops/weight.h"
namespace longcat {

// tensors: tokens, d_table, d_out, rows
struct EmbedBackwardParams {
  const int32_t* tokens;   // [T]; every id in [0, vocabulary), checked before it gets here
  float* dTable;           // [vocabulary, hidden], added to
  const float* dOut;       // [T, hidden]
  int64_t hidden;
  const int32_t* rows;     // [1]
  int64_t capacity;
};

}  // namespace longcat
