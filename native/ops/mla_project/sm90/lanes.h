// The latents' products of few rows on Hopper, up to the sums of their lanes of k.
#pragma once

#include "cuda/context.h"
#include "ops/mla_project/params.h"

namespace longcat::cuda {

/// Fills p.latentLanes: lane l of k, row r, output o of both matrices (the query's first) at [l][r][o], to be added in ascending order (lanesOf(k)
/// lanes; then the bias). False: not launched, because sizes, dtypes, the card or p.latentLanes do not allow it; gemm() has the same order of sums.
bool launchLatentLanes(const CudaContext& context, const MlaProjectParams& p);

}  // namespace longcat::cuda
