// The gate of a SwiGLU, backward: hidden = silu(g) · u. For the dense FFN and the experts.
#pragma once

#include "cpu/math.h"

namespace longcat::LONGCAT_ISA {

/// Of one row: gate holds g, up u, hidden dhidden; afterwards dg, du and silu(g) · u. Both gradients are those of dhidden · `factor`, and
/// so is hidden times it; returns Σ dhidden · silu(g) · u, the gradient of the factor (an expert's weight).
LONGCAT_INLINE float gateGradientRow(float* gate, float* up, float* hidden, int64_t ffn, float factor = 1.0f) {
  const Vec one = set1(1.0f), f = set1(factor);
  Vec products = zero();
  forLanes(ffn, [&](int64_t k, int n) {
    const Vec g = loadN(gate + k, n), u = loadN(up + k, n), dHidden = loadN(hidden + k, n);
    const Vec sigmoid = div(one, add(one, exp(sub(zero(), g)))), silu = mul(g, sigmoid), value = mul(silu, u), d = mul(dHidden, f);
    products = fma(dHidden, value, products);
    storeN(gate + k, mul(mul(d, u), mul(sigmoid, fma(g, sub(one, sigmoid), one))), n);
    storeN(up + k, mul(d, silu), n);
    storeN(hidden + k, mul(value, f), n);
  });
  return sum(products);
}

}  // namespace longcat::LONGCAT_ISA
