// random_fill: weights made where they lie, for measuring a model that nobody has. Element i of `out` in row-major order is
//   v_i = low + (high − low) · u_i,  u_i = (the upper 24 bits of a hash of seed and i) / 2^24,  in float32
// and stored as f32 (in [low, high)), bf16 or e4m3 codes (each rounded to nearest, ties to even, so that high itself may occur; no NaN).
// low = high fills with one number. The same bits on every device (uniform.h).
#pragma once
#include <cstdint>

#include "runtime/dtype.h"
namespace longcat {

// tensors: out
// scalars: seed, low, high
struct RandomFillParams {
  void* out;          // dense, any shape
  DType dtype;        // f32, bf16 or f8e4m3
  int64_t elements;
  uint64_t stream;    // where the seed's numbers begin
  float low, span;    // span = high − low
  float highest;      // the largest float32 below high (low where both are the same)
};

}  // namespace longcat
