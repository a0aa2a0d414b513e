// random_fill on a GPU: a chunk of elements for each thread and step.
#include "ops/random_fill/params.h"

#include "cuda/dependent.cuh"
#include "cuda/chunk.cuh"
#include "cuda/launch.cuh"
#include "ops/random_fill/uniform.h"

namespace longcat::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kBlocksPerMultiprocessor = 8;

__device__ __forceinline__ void store(float value, float& to) { to = value; }
__device__ __forceinline__ void store(float value, uint16_t& to) { to = fill::bf16Of(value); }
__device__ __forceinline__ void store(float value, uint8_t& to) { to = fill::e4m3Of(value); }

/// T: float, uint16_t (bf16's bits) or uint8_t (e4m3 codes).
template <class T>
__global__ void __launch_bounds__(kThreads) fillKernel(RandomFillParams p) {
  awaitPrevious();
  T* out = static_cast<T*>(p.out);
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads * kChunk;
  for (int64_t at = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kChunk; at < p.elements; at += step) {
    Chunk<T> chunk;
#pragma unroll
    for (int i = 0; i < kChunk; ++i) store(fill::valueAt(p, at + i), chunk.value[i]);
    storeStored(out + at, static_cast<int>(p.elements - at < kChunk ? p.elements - at : kChunk), chunk);
  }
}

}  // namespace

void random_fill(const void* params, const CudaContext& context) {
  const auto& p = *static_cast<const RandomFillParams*>(params);
  if (p.elements == 0) return;
  const int grid = persistentGrid(context, ceilDiv(p.elements, kThreads * kChunk), kBlocksPerMultiprocessor);
  const auto kernel = p.dtype == DType::bf16 ? fillKernel<uint16_t> : p.dtype == DType::f8e4m3 ? fillKernel<uint8_t> : fillKernel<float>;
  launch(context, kernel, grid, kThreads, 0, p);
}

}  // namespace longcat::cuda
