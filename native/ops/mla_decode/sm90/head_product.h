// Products of many decode rows with kv_b by wgmma (head_product.cuh).
#pragma once

#include "cuda/context.h"
#include "ops/mla_decode/params.h"

namespace longcat::cuda {

/// Whether sizes, weights, the address of `out` and the card are those it is made for. Operands can be copied 16 bytes at a time.
bool productsOnHopper(const CudaContext& context, const MlaDecodeParams& p);
/// Where it is faster than the kernels for few rows: there may be many; or, of absorbed queries, as many heads as give each multiprocessor its weights.
bool manyRowsPay(const MlaDecodeParams& p);
bool manyHeadsPay(const CudaContext& context, const MlaDecodeParams& p);

/// Absorbed queries to qLatent; values of the latents in qLatent to out. The bits are those of the kernels for few rows.
void absorbMany(const CudaContext& context, const MlaDecodeParams& p);
void valuesOfMany(const CudaContext& context, const MlaDecodeParams& p);

}  // namespace longcat::cuda
