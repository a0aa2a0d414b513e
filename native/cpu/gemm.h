// Matrix products of the CPU operations, compiled once for each instruction set (namespace LONGCAT_ISA).
//
// One rule makes every result independent of batch, tile and thread: out[r][o] is one chain along k, in vector lanes of the
// instruction set's width, lane sums folded in one fixed tree at the end. Tiles only choose which chains run side by side.
// Weights stay as stored: bf16 and FP8 become fp32 in registers (FP8 × its block's scale, before the product).
#pragma once

#include "ops/op.h"
#include "ops/weight.h"

namespace longcat::LONGCAT_ISA {

/// out[r·outStride + o] = Σ_k x[row(r)·xStride + k] · W[o][k] for r in [0, rows), o in [begin, end); row(r) = rowIndex ? rowIndex[r] : r.
/// Serial; for use inside a task.
void gemm(const float* x, int64_t xStride, const int32_t* rowIndex, int64_t rows, const WeightView& w, int64_t begin, int64_t end,
          float* out, int64_t outStride);

/// The same over all outputs, cut in tasks for the pool.
void gemmParallel(const CpuContext& context, const float* x, int64_t xStride, const int32_t* rowIndex, int64_t rows, const WeightView& w,
                  float* out, int64_t outStride);

/// out[r·outStride + j] = Σ_{i in [rowBegin, rowEnd), ascending} a[r·aStride + i - rowBegin] · W[i][j] for r in [0, rows), j in [0, w.columns): products
/// with a weight's transpose, as the absorbed query needs.
void gemmTransposed(const float* a, int64_t aStride, int64_t rows, const WeightView& w, int64_t rowBegin, int64_t rowEnd, float* out,
                    int64_t outStride);

}  // namespace longcat::LONGCAT_ISA
