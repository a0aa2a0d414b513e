// swiglu_mlp_backward: of hidden = silu(g) · u, g = x Gᵀ, u = x Uᵀ; out = hidden Dᵀ.
//   dhidden = dout D;  du = dhidden ⊙ silu(g);  dg = dhidden ⊙ u ⊙ silu'(g), silu'(g) = σ(g) (1 + g (1 − σ(g)))
//   dx = dg G + du U;  dG += dgᵀ x;  dU += duᵀ x;  dD += doutᵀ hidden
// g and u are computed again: two products, instead of two rows of ffn numbers kept for each token and FFN.
#pragma once
#include "ops/trainable.h"
namespace longcat {

// tensors: x, gate, d_gate, up, d_up, down, d_down, d_out, d_x, gate_rows, up_rows, hidden_rows, rows
struct SwigluMlpBackwardParams {
  const float* x;           // [T, width]
  Trainable gate, up;       // [ffn, width]
  Trainable down;           // [width, ffn]
  const float* dOut;        // [T, width]
  float* dX;                // [T, width]
  float* gateRows;          // [T, ffn] scratch: g, then dg
  float* upRows;            // [T, ffn] scratch: u, then du
  float* hiddenRows;        // [T, ffn] scratch: dhidden, then hidden
  const int32_t* rows;      // [1]
  int64_t capacity;
};

}  // namespace longcat
