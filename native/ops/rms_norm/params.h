// rms_norm: the residual stream's adds and the norm after them.
//   sum = (x + add) + add2        (each add that is there, in this order)
//   out = sum · rsqrt(mean(sum²) + eps) · weight
#pragma once
#include "ops/weight.h"
namespace longcat {

// tensors: x, add?, add2?, weight, sum?, out, rows      scalars: eps
struct RmsNormParams {
  const float* x;        // [T, width], row stride xStride (as each of the others has its own)
  const float* add;      // [T, width] or null
  const float* add2;     // [T, width] or null
  WeightView weight;     // [1, width] f32 or bf16
  float* sum;            // [T, width] or null; may be x itself
  float* out;            // [T, width]; may be a column view (the draft head writes two norms side by side)
  int64_t width, xStride, addStride, add2Stride, sumStride, outStride;
  const int32_t* rows;   // [1]
  int64_t capacity;
  float eps;
};

}  // namespace longcat
