// The query's product of few rows on Hopper, finished.
#pragma once

#include "cuda/context.h"
#include "ops/mla_project/params.h"

namespace longcat::cuda {

/// q = W_qb qLatent with its rope parts rotated. False: not launched, because sizes, dtypes or the card do not allow it; gemm() and a rotation
/// have the same bits.
bool launchQuery(const CudaContext& context, const MlaProjectParams& p);

}  // namespace longcat::cuda
