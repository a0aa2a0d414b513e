// adamw: one step of AdamW, its decay apart from its gradient (Loshchilov and Hutter).
//   g = factor · gradient;  m = β1 m + (1 − β1) g;  v = β2 v + (1 − β2) g²
//   w = w − rate · (decay · w + (m / (1 − β1^step)) / (√(v / (1 − β2^step)) + ε))
#pragma once
#include "ops/weight.h"
namespace longcat {

// tensors: weight, gradient, momentum, variance, factor
// scalars: rate, beta1, beta2, epsilon, decay, step
struct AdamwParams {
  float* weight;           // [n]: numbers of whatever shape, all four alike
  const float* gradient;   // [n]
  float* momentum;         // [n]: m
  float* variance;         // [n]: v
  const float* factor;     // [1], of gradient_norm
  int64_t count;
  float rate, beta1, beta2, epsilon, decay;
  float momentumScale;     // 1 / (1 − β1^step)
  float varianceScale;     // 1 / (1 − β2^step)
};

}  // namespace longcat
