// linear: out = x Wᵀ + bias.
#pragma once
#include "ops/weight.h"
namespace longcat {

// tensors: x, row_index?, weight, scale?, bias?, out, rows, scratch?
struct LinearParams {
  ConstActivations x;        // [T, inputs], row stride xStride
  int64_t xStride;
  const int32_t* rowIndex;   // [R] or null: row r of the output comes from row rowIndex[r] of x (logits of the last tokens only)
  WeightView weight;         // [outputs, inputs]
  WeightView bias;           // [1, outputs] f32 or bf16, data null if absent
  Activations out;           // [R, outputs], row stride outStride
  int64_t outStride;
  const int32_t* rows;       // [1]: live rows of the output
  int64_t capacity;          // R
  Activations scratch;       // [R, scratchStride] or data null: where products of many rows with FP8 weights put rows in order ahead, or quantise them (a GPU)
  int64_t scratchStride;
  DType activation;          // of x
  DType outDtype;            // of out: float32 (logits, residual stream) or what x is
};

}  // namespace longcat
