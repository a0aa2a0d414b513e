// The backward of the root-mean-square norm (cpu/math.h), for the residual stream and for attention's latents.
//   out = x · s · weight · factor, s = 1 / sqrt(mean(x²) + eps)
//   dx = s · factor · (weight ⊙ dout) − x · s³ · factor · mean(x ⊙ weight ⊙ dout)
//   dweight = Σ_rows dout ⊙ x · s · factor
#pragma once

#include "cpu/gemm_gradients.h"
#include "cpu/math.h"

namespace longcat::LONGCAT_ISA {

/// A norm's sizes and numbers; `scales` has each row's s (rmsScale).
struct NormBackward {
  int64_t width;
  const float* weight;
  float* scales;
  float factor = 1.0f;
};

/// dx of one row (before ? before + dx : dx) to `out`, which may be dOut or `before`.
LONGCAT_INLINE void normGradientRow(const NormBackward& norm, int64_t r, const float* x, const float* dOut, const float* before, float* out) {
  Vec products = zero();
  forLanes(norm.width, [&](int64_t k, int n) {
    products = fma(loadN(x + k, n), mul(loadN(norm.weight + k, n), loadN(dOut + k, n)), products);
  });
  const float s = norm.scales[r];
  const Vec direct = set1(s * norm.factor), common = set1(s * s * s * norm.factor * (sum(products) / static_cast<float>(norm.width)));
  forLanes(norm.width, [&](int64_t k, int n) {
    const Vec d = sub(mul(direct, mul(loadN(norm.weight + k, n), loadN(dOut + k, n))), mul(common, loadN(x + k, n)));
    storeN(out + k, before ? add(loadN(before + k, n), d) : d, n);
  });
}

/// dWeight += Σ_rows dout ⊙ x · s · factor, rows ascending, cut in tasks by columns. dOut may be the sum of two.
LONGCAT_INLINE void addNormWeightGradient(const CpuContext& context, const NormBackward& norm, const Rows& x, const Rows& dOut, const Rows& dOut2,
                                          int64_t rows, float* dWeight) {
  forColumnStrips(context, norm.width, [&](int64_t begin, int64_t count) {
    forLanes(count, [&](int64_t k, int n) {
      const int64_t c = begin + k;
      Vec total = zero();
      for (int64_t r = 0; r < rows; ++r) {
        Vec d = loadN(dOut.at(r) + c, n);
        if (dOut2.data) d = add(d, loadN(dOut2.at(r) + c, n));
        total = fma(d, mul(loadN(x.at(r) + c, n), set1(norm.scales[r] * norm.factor)), total);
      }
      storeN(dWeight + c, add(loadN(dWeight + c, n), total), n);
    });
  });
}

}  // namespace longcat::LONGCAT_ISA
