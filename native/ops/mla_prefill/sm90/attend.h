// Prompt attention with Hopper's instructions (attend.cu).
#pragma once

#include "cuda/context.h"
#include "ops/mla_prefill/prompts.cuh"

namespace longcat::cuda::prefill {

/// Attention of one round. False, and nothing launched, where the card or the sizes are others than it is made for.
bool attendHopper(const CudaContext& context, const MlaPrefillParams& p, const Round& round);

}  // namespace longcat::cuda::prefill
