// Attention of decode rows with what only Hopper has (attend.cuh), in two steps.
#pragma once

#include "cuda/context.h"
#include "ops/mla_decode/params.h"

namespace longcat::cuda {

/// Enqueues the first, if the card is one of capability 9.0 and the sizes are those it is made for; otherwise false. Operands can be copied 16 bytes at
/// a time. Latents of rows that one block attended lie in qLatent then, for the others there are partial results (merge_units.cuh).
bool attendUnitsOnHopper(const CudaContext& context, const MlaDecodeParams& p);

/// The second: latents of all rows to qLatent.
void mergeUnitsOnHopper(const CudaContext& context, const MlaDecodeParams& p);

}  // namespace longcat::cuda
