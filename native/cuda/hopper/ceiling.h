// The ceiling of Hopper's own matrix instruction (cuda/ceilings.h measures it where the card has that).
#pragma once

#include "cuda/context.h"

namespace longcat::cuda {

/// Launches a kernel of nothing but bfloat16 wgmma; capability 9.0 only. Operations that it does. `sink`: 4 bytes that are in practice not written.
double launchWgmma(const CudaContext& context, float* sink);

}  // namespace longcat::cuda
