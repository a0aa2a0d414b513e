// Products of many decode rows with kv_b by wgmma (head_product.cuh).
#pragma once

#include "cuda/context.h"
#include "ops/mla_decode/params.h"

namespace longcat::cuda {

/// Whether sizes, weights, the address of `out` and the card are those it is made for, and there may be so many rows that it pays. Operands can be copied
/// 16 bytes at a time.
bool manyRowsOnHopper(const CudaContext& context, const MlaDecodeParams& p);

/// Absorbed queries to qLatent; values of the latents in qLatent to out. The bits are those of the kernels for few rows.
void absorbMany(const CudaContext& context, const MlaDecodeParams& p);
void valuesOfMany(const CudaContext& context, const MlaDecodeParams& p);

}  // namespace longcat::cuda
