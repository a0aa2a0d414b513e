// linear_backward: of out = x Wᵀ + bias.
//   dx = dout W;  dW += doutᵀ x;  dbias += Σ_rows dout
#pragma once
#include "ops/trainable.h"
namespace longcat {

// tensors: x, weight, d_weight, bias?, d_bias?, d_out, d_x, rows
struct LinearBackwardParams {
  const float* x;          // [T, inputs], row stride xStride
  Trainable weight;        // [outputs, inputs]
  Trainable bias;          // [1, outputs], null if absent
  const float* dOut;       // [T, outputs], row stride dOutStride
  float* dX;               // [T, inputs], row stride dXStride
  int64_t xStride, dOutStride, dXStride;
  const int32_t* rows;     // [1]
  int64_t capacity;
};

}  // namespace longcat
