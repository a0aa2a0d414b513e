// rms_norm on a GPU: a warp or a block a row. Thread t of a row's n threads holds the octets t, t + n, … of eight numbers; it sums their
// squares in ascending order, and cuda/reduce.cuh folds the threads. n depends on the width alone, so that is the order of every sum.
#include "ops/rms_norm/params.h"

#include "cuda/launch.cuh"
#include "cuda/reduce.cuh"
#include "cuda/vectors.cuh"

namespace longcat::cuda {
namespace {

constexpr int kMaxThreads = 512;
constexpr int kRowsOfWarps = 4;  // rows a block has where a warp is enough for each

/// Which operands have rows of whole, aligned 16 bytes.
struct Aligned {
  bool x, add, add2, weight, sum, out;
};

template <class X, class A>
struct Row {
  const X* x;
  const A* add;
  const A* add2;
  X* sum;
  A* out;
};

template <class X, class A>
__device__ __forceinline__ Row<X, A> rowAt(const RmsNormParams& p, int64_t r) {
  return {static_cast<const X*>(p.x.data) + r * p.xStride, p.add.data ? static_cast<const A*>(p.add.data) + r * p.addStride : nullptr,
          p.add2.data ? static_cast<const A*>(p.add2.data) + r * p.add2Stride : nullptr, p.sum.data ? static_cast<X*>(p.sum.data) + r * p.sumStride : nullptr,
          static_cast<A*>(p.out.data) + r * p.outStride};
}

__device__ __forceinline__ void addTo(float (&v)[kOctet], const float (&other)[kOctet]) {
#pragma unroll
  for (int i = 0; i < kOctet; ++i) v[i] += other[i];
}

/// v = (x + add) + add2 of numbers [k, k + n), rounded as the sum is stored, whether or not anybody wants it.
template <class X, class A>
__device__ __forceinline__ void sumOctet(const Row<X, A>& row, const Aligned& aligned, int64_t k, int64_t n, float (&v)[kOctet]) {
  float other[kOctet];
  loadOctet(row.x + k, n, aligned.x, v);
  if (row.add) loadOctet(row.add + k, n, aligned.add, other), addTo(v, other);
  if (row.add2) loadOctet(row.add2 + k, n, aligned.add2, other), addTo(v, other);
#pragma unroll
  for (int i = 0; i < kOctet; ++i) v[i] = floatOf(numberOf<X>(v[i]));
}

/// Adds the squares of v to `squares`, in order.
__device__ __forceinline__ void addSquares(const float (&v)[kOctet], float& squares) {
#pragma unroll
  for (int i = 0; i < kOctet; ++i) squares = fmaf(v[i], v[i], squares);
}

template <class X, class A, class W>
__device__ __forceinline__ void normOctet(const RmsNormParams& p, const Row<X, A>& row, const Aligned& aligned, int64_t k, int64_t n, float scale,
                                          float (&v)[kOctet]) {
  float weight[kOctet];
  loadOctet(static_cast<const W*>(p.weight.data) + k, n, aligned.weight, weight);
#pragma unroll
  for (int i = 0; i < kOctet; ++i) v[i] = v[i] * scale * weight[i];
  storeOctet(row.out + k, n, aligned.out, v);
}

/// A row has `threads` threads: the whole block, or one of its warps. The first kKept octets of a thread stay in registers; of rows wider
/// than that, the rest is read again.
template <class X, class A, class W, int kKept>
__global__ void __launch_bounds__(kMaxThreads) normRows(const __grid_constant__ RmsNormParams p, const Aligned aligned, const int threads) {
  __shared__ float shared[32];
  const int rowsOfBlock = static_cast<int>(blockDim.x) / threads, thread = static_cast<int>(threadIdx.x) % threads;
  const int64_t rows = liveRows(p.rows, p.capacity), octets = (p.width + kOctet - 1) / kOctet;
  for (int64_t r = static_cast<int64_t>(blockIdx.x) * rowsOfBlock + threadIdx.x / threads; r < rows; r += static_cast<int64_t>(gridDim.x) * rowsOfBlock) {
    const Row<X, A> row = rowAt<X, A>(p, r);
    float kept[kKept][kOctet], squares = 0;
#pragma unroll
    for (int i = 0; i < kKept; ++i) {
      const int64_t octet = thread + i * threads, k = octet * kOctet;
      if (octet >= octets) continue;
      sumOctet(row, aligned, k, p.width - k, kept[i]);
      if (row.sum) storeOctet(row.sum + k, p.width - k, aligned.sum, kept[i]);
      addSquares(kept[i], squares);
    }
    for (int64_t octet = thread + kKept * threads; octet < octets; octet += threads) {
      const int64_t k = octet * kOctet;
      float v[kOctet];
      sumOctet(row, aligned, k, p.width - k, v);
      if (row.sum) storeOctet(row.sum + k, p.width - k, aligned.sum, v);
      addSquares(v, squares);
    }
    squares = rowsOfBlock > 1 ? warpSum(squares) : blockSum(squares, shared);
    const float scale = 1.0f / sqrtf(squares / static_cast<float>(p.width) + p.eps);
#pragma unroll
    for (int i = 0; i < kKept; ++i) {
      const int64_t octet = thread + i * threads, k = octet * kOctet;
      if (octet < octets) normOctet<X, A, W>(p, row, aligned, k, p.width - k, scale, kept[i]);
    }
    for (int64_t octet = thread + kKept * threads; octet < octets; octet += threads) {
      const int64_t k = octet * kOctet;
      float v[kOctet];
      if (row.sum) loadOctet(row.sum + k, p.width - k, aligned.sum, v);  // x itself may be gone
      else sumOctet(row, aligned, k, p.width - k, v);
      normOctet<X, A, W>(p, row, aligned, k, p.width - k, scale, v);
    }
  }
}

template <class X, class A, class W>
void launchNorm(const CudaContext& context, const RmsNormParams& p) {
  const Aligned aligned = {rowsAligned(p.x.as<X>(), p.xStride),       rowsAligned(p.add.as<A>(), p.addStride), rowsAligned(p.add2.as<A>(), p.add2Stride),
                           rowsAligned(static_cast<const W*>(p.weight.data), 0), rowsAligned(p.sum.as<X>(), p.sumStride), rowsAligned(p.out.as<A>(), p.outStride)};
  const int64_t octets = ceilDiv(p.width, kOctet), kept = octets <= 256 ? 1 : 2;
  const int threads = static_cast<int>(std::min<int64_t>(kMaxThreads, ceilDiv(ceilDiv(octets, kept), 32) * 32));
  const int rowsOfBlock = threads == 32 ? kRowsOfWarps : 1;
  const int grid = persistentGrid(context, ceilDiv(p.capacity, rowsOfBlock), 4);
  if (kept == 1) launch(context, normRows<X, A, W, 1>, grid, threads * rowsOfBlock, 0, p, aligned, threads);
  else launch(context, normRows<X, A, W, 2>, grid, threads, 0, p, aligned, threads);
}

template <class X, class A>
void launchNorm(const CudaContext& context, const RmsNormParams& p) {
  if (p.weight.dtype == DType::bf16) launchNorm<X, A, Bf16>(context, p);
  else launchNorm<X, A, float>(context, p);
}

}  // namespace

void rms_norm(const void* params, const CudaContext& context) {
  const auto& p = *static_cast<const RmsNormParams*>(params);
  if (p.capacity == 0) return;
  if (p.activation == DType::f32) launchNorm<float, float>(context, p);
  else if (p.xDtype == DType::f32) launchNorm<float, Bf16>(context, p);
  else launchNorm<Bf16, Bf16>(context, p);
}

}  // namespace longcat::cuda
