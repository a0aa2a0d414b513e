// Prompt attention with Hopper's instructions (attend.cu).
#pragma once

#include "cuda/context.h"
#include "ops/mla_prefill/prompts.cuh"

namespace longcat::cuda::prefill {

/// Attention of the round that planRound() planned. False, and nothing launched, where the card or the sizes are others than it is made for.
bool attendHopper(const CudaContext& context, const MlaPrefillParams& p);

}  // namespace longcat::cuda::prefill
