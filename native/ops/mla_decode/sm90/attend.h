// Attention of decode rows with what only Hopper has (attend.cuh).
#pragma once

#include "cuda/context.h"
#include "ops/mla_decode/params.h"

namespace longcat::cuda {

/// Enqueues it, if the card is one of capability 9.0 and the sizes are those it is made for; otherwise false. Operands can be copied 16 bytes at a
/// time. Partial results are those of units (units.cuh).
bool attendUnitsOnHopper(const CudaContext& context, const MlaDecodeParams& p);

}  // namespace longcat::cuda
