// embed on a GPU: rows of the table, widened to float, eight numbers a thread.
#include "ops/embed/params.h"

#include "cuda/dependent.cuh"
#include "cuda/launch.cuh"
#include "cuda/vectors.cuh"

namespace longcat::cuda {
namespace {

constexpr int kThreads = 128;

/// Block (x, y): octets of the row from x · kThreads on, rows y, y + gridDim.y, …
template <class E, bool kWhole>
__global__ void __launch_bounds__(kThreads) gatherRows(const __grid_constant__ EmbedParams p) {
  awaitPrevious();
  const int64_t rows = liveRows(p.rows, p.capacity), hidden = p.table.columns;
  const int64_t k = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kOctet;
  if (k >= hidden) return;
  for (int64_t t = blockIdx.y; t < rows; t += gridDim.y) {
    float v[kOctet];
    loadOctet<kWhole>(static_cast<const E*>(p.table.data) + p.tokens[t] * hidden + k, hidden - k, v);
    storeOctet<kWhole>(p.out + t * p.outStride + k, hidden - k, v);
  }
}

template <class E>
void launchGather(const CudaContext& context, const EmbedParams& p) {
  const int64_t across = ceilDiv(p.table.columns, kThreads * kOctet);
  const dim3 grid(static_cast<unsigned>(across), static_cast<unsigned>(persistentGrid(context, p.capacity, 16)));
  const bool whole = p.table.columns % kOctet == 0 && rowsAligned(static_cast<const E*>(p.table.data), p.table.columns) && rowsAligned(p.out, p.outStride);
  launch(context, whole ? gatherRows<E, true> : gatherRows<E, false>, grid, kThreads, 0, p);
}

}  // namespace

void embed(const void* params, const CudaContext& context) {
  const auto& p = *static_cast<const EmbedParams*>(params);
  if (p.capacity == 0) return;
  if (p.table.dtype == DType::bf16) launchGather<Bf16>(context, p);
  else launchGather<float>(context, p);
}

}  // namespace longcat::cuda
