// The kernels of matrix products that gemm() chooses from; each file of kernels is compiled on its own.
#pragma once

#include "cuda/gemm.h"

namespace longcat::cuda {

// For few rows (tiles of 8, 16 or 32: the first that takes `rows`) and for many (of 64 or 128). False: not launched,
// because this card's blocks have too little shared memory, or no tile is that small. Same bits from all that take a problem.
bool streamBf16(const CudaContext& context, const GemmProblem& p, int64_t rows);
bool streamFp8(const CudaContext& context, const GemmProblem& p, int64_t rows);
bool streamFp8Quantised(const CudaContext& context, const GemmProblem& p, int64_t rows);
bool tileBf16(const CudaContext& context, const GemmProblem& p, int64_t rows);
bool tileFp8(const CudaContext& context, const GemmProblem& p, int64_t rows);
bool tileFp8Quantised(const CudaContext& context, const GemmProblem& p, int64_t rows);

/// Hopper's, for few rows (up to 96 of a group; more in pieces). Sums of their own, which its kernels for many rows have too (hopper/gemm_many.h).
/// False: not launched, because there are thousands of groups, or no cluster with a block for each lane of k finds room on this card.
bool fewBf16(const CudaContext& context, const GemmProblem& p, int64_t rows);
bool fewFp8(const CudaContext& context, const GemmProblem& p, int64_t rows);
bool fewFp8Quantised(const CudaContext& context, const GemmProblem& p, int64_t rows);

/// Any sizes, dtypes and addresses, in float32.
void gemmGeneric(const CudaContext& context, const GemmProblem& p);

}  // namespace longcat::cuda
