// timestamp on a GPU: one thread, when all before it is over.
#include "cuda/dependent.cuh"
#include "cuda/launch.cuh"
#include "ops/op.h"
#include "ops/timestamp/params.h"

namespace longcat::cuda {
namespace {

__global__ void timestampKernel(const TimestampParams p) {
  awaitPrevious();
  uint64_t now;
  asm volatile("mov.u64 %0, %%globaltimer;\n" : "=l"(now)::"memory");
  *p.out = static_cast<int64_t>(now);
}

}  // namespace

void timestamp(const void* params, const CudaContext& context) {
  launch(context, timestampKernel, 1, 1, 0, *static_cast<const TimestampParams*>(params));
}

}  // namespace longcat::cuda
