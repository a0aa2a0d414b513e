// gradient_norm: the length of all gradients together, and what they are to be multiplied by to be no longer than `most`.
//   norm = √Σ g²;  factor = min(1, most / norm), 1 where most is 0
// Gradients lie in one piece. Chunks of kNormChunk numbers are summed for themselves, then in float64 in their order, so that the
// bits do not depend on threads.
#pragma once
#include "ops/weight.h"
namespace longcat {

constexpr int64_t kNormChunk = 4096;
inline int64_t normChunks(int64_t numbers) { return (numbers + kNormChunk - 1) / kNormChunk; }

// tensors: gradients, partial, norm, factor      scalars: most
struct GradientNormParams {
  const float* gradients;  // [n]
  float* partial;          // [normChunks(n)] scratch: sums of squares
  float* norm;             // [1]
  float* factor;           // [1], for adamw
  int64_t count;
  double most;
};

}  // namespace longcat
