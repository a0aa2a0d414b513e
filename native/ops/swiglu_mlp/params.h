// swiglu_mlp: hidden = silu(x Gᵀ) · (x Uᵀ); out = hidden Dᵀ. silu(z) = z / (1 + e^-z).
#pragma once
#include "ops/weight.h"
namespace longcat {

// tensors: x, gate, gate_scale?, up, up_scale?, down, down_scale?, hidden, out, rows
struct SwigluMlpParams {
  ConstActivations x;      // [T, width] contiguous
  WeightView gate, up;     // [ffn, width]
  WeightView down;         // [width, ffn]
  Activations hidden;      // [T, ffn] scratch
  Activations out;         // [T, width] contiguous
  const int32_t* rows;     // [1]
  int64_t capacity;
  DType activation;
};

}  // namespace longcat
