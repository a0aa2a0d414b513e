// draft_plan on a GPU: one launch, a thread a row and a thread a sequence.
#include "cuda/dependent.cuh"
#include "cuda/launch.cuh"
#include "cuda/numbers.cuh"
#include "ops/draft_plan/plan.h"
#include "ops/op.h"

namespace longcat::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads) draftPlanKernel(const DraftPlanParams p) {
  awaitPrevious();
  const int64_t rows = clampCount(p.counts[numRows], p.capacity), sequences = clampCount(p.counts[numSequences], p.maxSequences);
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x, threads = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t r = thread; r < rows; r += threads) p.following[r] = followingToken(p, r);
  for (int64_t s = thread; s < sequences; s += threads) {
    const DraftPlace place = draftPlace(p, s);
    p.draftRow[s] = place.row;
    p.draftSlot[s] = place.slot;
    p.draftPosition[s] = place.position;
  }
}

}  // namespace

void draft_plan(const void* params, const CudaContext& context) {
  const auto& p = *static_cast<const DraftPlanParams*>(params);
  launch(context, draftPlanKernel, persistentGrid(context, ceilDiv(p.capacity, kThreads), 2), kThreads, 0, p);
}

}  // namespace longcat::cuda
