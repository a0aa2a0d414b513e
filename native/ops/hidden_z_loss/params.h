// hidden_z_loss: keeps the last hidden state small (the report's Eq. 10).
//   loss = (log Σ_i exp|x_i|)² of each row;  dx += scale · 2 · log Σ exp|x| · softmax(|x|) ⊙ sign(x)
// x is what the final norm reads; `scale` is λ / T.
#pragma once
#include "ops/weight.h"
namespace longcat {

// tensors: x, scale, loss, d_x, rows
struct HiddenZLossParams {
  const float* x;       // [T, width]
  const float* scale;   // [1]
  float* loss;          // [T], not scaled
  float* dX;            // [T, width], added to
  const int32_t* rows;  // [1]
  int64_t capacity, width;
};

}  // namespace longcat
