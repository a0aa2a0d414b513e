// gradient_norm: the length of all gradients together, and what they are to be multiplied by to be no longer than `most`.
//   norm = √Σ g²;  factor = min(1, most / norm), 1 where most is 0
// Gradients lie in one piece, which is cut in as many chunks as `partial` has numbers. Each is summed for itself, then all in float64 in
// their order, so that the bits do not depend on threads.
#pragma once
#include "ops/weight.h"
namespace longcat {

// tensors: gradients, partial, norm, factor      scalars: most
struct GradientNormParams {
  const float* gradients;  // [n]
  float* partial;          // [chunks] scratch: sums of squares
  float* norm;             // [1]
  float* factor;           // [1], for adamw
  int64_t count, chunks;
  double most;
};

}  // namespace longcat
