// rms_norm_backward: of out = RMS(sum) · weight, sum = (x + add) + add2.
//   dsum = dresidual + (∂out/∂sum)ᵀ (dout + dout2);  dweight += Σ_rows (dout + dout2) ⊙ sum / rms
// The gradients of x, add and add2 are all dsum: as the forward's adds live in the norm, the backward's stream needs no operation of its own.
#pragma once
#include "ops/trainable.h"
namespace longcat {

// tensors: sum, weight, d_weight, d_out, d_out2?, d_residual?, d_sum, scales, rows      scalars: eps
struct RmsNormBackwardParams {
  const float* sum;        // [T, width] what was normed
  Trainable weight;        // [1, width]
  const float* dOut;       // [T, width]
  const float* dOut2;      // [T, width] or null: of a second reader (the experts read what dense FFN 0 reads)
  const float* dResidual;  // [T, width] or null: the gradient that reaches the sum beside the norm
  float* dSum;             // [T, width]; may be dResidual, dOut or dOut2
  float* scales;           // [T] scratch: 1 / rms of each row
  int64_t width;
  const int32_t* rows;     // [1]
  int64_t capacity;
  float eps;
};

}  // namespace longcat
