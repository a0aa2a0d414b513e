// A kernel that fails for good, for tests of what a lost GPU leaves behind.
#pragma once

#include "cuda/context.h"

namespace longcat::cuda {

/// Launches a kernel that traps: a sticky error, after which no work of this process runs on the GPU.
void launchTrap(const CudaContext& context);

}  // namespace longcat::cuda
