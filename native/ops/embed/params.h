// embed: out[t] = table[token[t]].
#pragma once
#include "ops/weight.h"
namespace longcat {

// tensors: tokens, table, out, rows
struct EmbedParams {
  const int32_t* tokens;   // [T]; every id in [0, vocabulary), checked before it gets here
  WeightView table;        // [vocabulary, hidden] f32 or bf16
  float* out;              // [T, hidden], row stride outStride
  int64_t outStride;
  const int32_t* rows;     // [1]: live rows, at most capacity
  int64_t capacity;        // T
};

}  // namespace longcat
