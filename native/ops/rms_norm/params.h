// rms_norm: the residual stream's adds and the norm after them.
//   sum = (x + add) + add2        (each add that is there, in this order)
//   out = sum · rsqrt(mean(sum²) + eps) · weight
#pragma once
#include "ops/weight.h"
namespace longcat {

// tensors: x, add?, add2?, weight, sum?, out, rows      scalars: eps
struct RmsNormParams {
  ConstActivations x;    // [T, width] of xDtype: the residual stream in float32, or activations; row stride xStride (as each has its own)
  ConstActivations add;  // [T, width] or null
  ConstActivations add2; // [T, width] or null
  WeightView weight;     // [1, width] f32 or bf16
  Activations sum;       // [T, width] of xDtype or null; may be x itself
  Activations out;       // [T, width]; may be a column view (the draft head writes two norms side by side)
  int64_t width, xStride, addStride, add2Stride, sumStride, outStride;
  const int32_t* rows;   // [1]
  int64_t capacity;
  float eps;
  DType activation;      // of add, add2 and out
  DType xDtype;          // of x and sum
};

}  // namespace longcat
