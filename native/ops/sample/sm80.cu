// sample on a GPU: one block a row (row.cuh), or where the card has clusters several blocks a row (sm90/).
#include "cuda/dependent.cuh"
#include "cuda/launch.cuh"
#include "ops/sample/row.cuh"
#include "ops/sample/sm90/sample.h"

namespace longcat::cuda {
namespace {

__global__ void __launch_bounds__(kThreads, 1) sampleKernel(const __grid_constant__ SampleParams p) {
  awaitPrevious();
  extern __shared__ __align__(16) unsigned char memory[];
  auto& s = *reinterpret_cast<SampleShared*>(memory);
  const int64_t i = blockIdx.x, r = p.rows[0] + i;
  if (r >= p.rows[1]) return;
  const DrawPlace place = drawPlace(p, r);
  if (!place.isLive) return leaveNothing(p, i);
  if (threadIdx.x == 0) s.row.set(p, r, place.position);
  __syncthreads();
  leaveToken(p, r, i, chooseToken(p, i, s), s);
}

}  // namespace

void sample(const void* params, const CudaContext& context) {
  const auto& p = *static_cast<const SampleParams*>(params);
  if (sampleByClusters(p, context)) return;
  launch(context, sampleKernel, dim3(static_cast<unsigned>(p.mostRows)), kThreads, sizeof(SampleShared), p);
}

}  // namespace longcat::cuda
