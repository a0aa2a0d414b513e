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

/// Whether rows of these sizes are chosen for by teams of warps (a softmax's order of sums is theirs); it depends on sizes alone.
bool choosesByTeams(const CudaContext& context, const MoeRouteParams& p);
/// Launches the choice, after the logits, and the plan in the same launch, if there is to be one and rows are few enough. False: it is left to do.
bool launchTeamChoice(const CudaContext& context, const MoeRouteParams& p);

}  // namespace longcat::cuda
