// The kernel that traps.
#include "cuda/trap.h"

#include "cuda/dependent.cuh"
#include "cuda/launch.cuh"

namespace longcat::cuda {
namespace {

__global__ void trap() {
  awaitPrevious();
  asm volatile("trap;");
}

}  // namespace

void launchTrap(const CudaContext& context) { launch(context, trap, dim3(1), 1, 0); }

}  // namespace longcat::cuda
