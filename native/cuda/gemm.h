// Matrix products of the operations on a GPU: dense ones, and grouped ones over the experts' rows. One kernel family for all of them.
//
//   out[r][o] = Σ_k x[source(r)][k] · W_g[o][k]      for the rows r of each group g
//
// Every result has one order of summation, given by W's shape and dtype alone: not by the number of rows, the tile, the group or the
// grid. gemm.cu says which.
#pragma once

#include "cuda/context.h"
#include "ops/weight.h"

namespace longcat::cuda {

/// What becomes of a product.
enum class Epilogue {
  store,    // out = x Wᵀ (+ bias)
  swiglu,   // out = silu(x Gᵀ) · (x Uᵀ): `weight` is the gate, `weight2` the up matrix
};

struct GemmProblem {
  // Inputs
  ConstActivations x;                  // [*, k], row stride xStride, of dtype `activation`
  int64_t xStride = 0;
  DType activation = DType::f32;
  const int32_t* rowIndex = nullptr;   // row r reads x[rowIndex[r]]; null: x[r]
  // Rows: one group [0, *liveRows), or groups [groupStart[g], groupStart[g+1]) (then liveRows is null). All on the device.
  const int32_t* liveRows = nullptr;
  const int32_t* groupStart = nullptr;
  bool groupsSettled = false;          // the groups were written before the kernel that precedes the product in the stream, itself one of gemm()'s
  int64_t groups = 1;
  int64_t capacity = 0;                // most rows there may be in all; sizes grids
  int64_t expected = 0;                // of groups: rows that there will be in all, about; 0: `capacity`. Chooses tiles, and no bits; more rows only take longer
  // Weights: one matrix [outputs, k], or a stack with one for each group.
  WeightView weight, weight2;
  WeightStack stack, stack2;           // used where groupStart is set; parts begin at multiples of 16 bytes
  WeightView bias;                     // [1, outputs] f32 or bf16, data null if absent; Epilogue::store only
  // Output
  Epilogue epilogue = Epilogue::store;
  Activations out;                     // [capacity, outputs], row stride outStride, of outDtype
  int64_t outStride = 0;
  DType outDtype = DType::f32;
  // Scratch, where many rows may be put as the product wants them (in another order of numbers, or quantised) by a launch ahead: `aheadStride` bytes for
  // each of `capacity` rows. It may be x itself, whose numbers are lost then. Without it other kernels do the product, with the same bits.
  unsigned char* ahead = nullptr;
  int64_t aheadStride = 0;
};

/// Launches the product on the context's stream. Any sizes and weight dtypes; bf16 activations with bf16 or FP8 weights whose k is a
/// multiple of 32 (of 128 for FP8) use tensor cores.
void gemm(const CudaContext& context, const GemmProblem& problem);

/// p.ahead is rows of `stride` bfloat16 numbers.
void useAhead(GemmProblem& problem, void* rows, int64_t stride);

/// A dense product in one line.
GemmProblem denseProblem(ConstActivations x, int64_t xStride, DType activation, const int32_t* liveRows, int64_t capacity, const WeightView& weight,
                         Activations out, int64_t outStride, DType outDtype);

}  // namespace longcat::cuda
