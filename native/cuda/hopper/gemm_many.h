// Products of many rows on Hopper (compute capability 9.0): what gemm() chooses from. The bits are those of the kernels for few rows.
#pragma once

#include "cuda/gemm.h"

namespace longcat::cuda {

/// `rows` of a group, about. False, here and below: not launched, since there are too many groups.
bool manyBf16(const CudaContext& context, const GemmProblem& p, int64_t rows);
/// FP8 weights. Rows are put in the weights' order ahead, in p.ahead; false also where that is missing, or k is too long.
bool manyFp8Ordered(const CudaContext& context, const GemmProblem& p);
/// The same; rows are quantised ahead.
bool manyFp8Quantised(const CudaContext& context, const GemmProblem& p);

}  // namespace longcat::cuda
