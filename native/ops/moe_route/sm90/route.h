// What moe_route does in its own way on Hopper: the parts that sm80.cu puts together.
#pragma once

#include "cuda/context.h"
#include "ops/moe_route/params.h"

namespace longcat::cuda {

/// A router of so few outputs is tiny: one block can do all of it for a few rows, by multiply-adds.
constexpr int64_t kTinyOutputs = 64;

/// Whether the logits of these sizes are products of tensor cores; it depends on sizes, dtypes and addresses, not on the number of rows.
bool logitsOnTensorCores(const CudaContext& context, const MoeRouteParams& p);
void launchTensorLogits(const CudaContext& context, const MoeRouteParams& p);

/// Choice and plan by one cluster of blocks, in one launch that may begin before the logits are there. False: too many rows, experts or
/// choices for it; nothing is launched.
bool launchClusterChoice(const CudaContext& context, const MoeRouteParams& p);

}  // namespace longcat::cuda
