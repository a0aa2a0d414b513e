// The gated product of a SwiGLU, fused by tiles: hidden = silu(x Gᵀ) · (x Uᵀ). For the dense MLP and the experts.
#pragma once

#include "cpu/gemm.h"
#include "cpu/math.h"
#include "cpu/swiglu_plan.h"

namespace longcat::LONGCAT_ISA {

/// hidden[r][o] for r in [0, rows), o in [begin, end); x and rowIndex as in gemm(). `scratch` holds kSwigluScratchBytes.
[[maybe_unused]] static void swigluHidden(const float* x, int64_t xStride, const int32_t* rowIndex, int64_t rows, const WeightView& gate,
                                          const WeightView& up, int64_t begin, int64_t end, float* hidden, int64_t hiddenStride, float* scratch) {
  for (int64_t o = begin; o < end; o += kSwigluOutputs) {
    const int64_t last = smaller(end, o + kSwigluOutputs);
    for (int64_t r = 0; r < rows; r += kSwigluRows) {
      const int64_t count = smaller(kSwigluRows, rows - r);
      const float* from = rowIndex ? x : x + r * xStride;
      const int32_t* index = rowIndex ? rowIndex + r : nullptr;
      float* tile = hidden + r * hiddenStride;
      gemm(from, xStride, index, count, gate, o, last, tile, hiddenStride);
      gemm(from, xStride, index, count, up, o, last, scratch - o, kSwigluOutputs);  // gemm counts columns from output 0
      for (int64_t i = 0; i < count; ++i) {
        float* h = tile + i * hiddenStride + o;
        const float* u = scratch + i * kSwigluOutputs;
        forLanes(last - o, [&](int64_t k, int n) { storeN(h + k, mul(silu(loadN(h + k, n)), loadN(u + k, n)), n); });
      }
    }
  }
}

}  // namespace longcat::LONGCAT_ISA
