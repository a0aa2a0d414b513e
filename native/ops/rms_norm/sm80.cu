// rms_norm on a GPU: a warp or a block a row. Thread t of a row's n threads holds the octets t, t + n, … of eight numbers; it sums their
// squares in ascending order, and cuda/reduce.cuh folds the threads. n depends on the width alone, so that is the order of every sum.
#include "ops/rms_norm/params.h"

#include "cuda/dependent.cuh"
#include "cuda/launch.cuh"
#include "cuda/reduce.cuh"
#include "cuda/vectors.cuh"

namespace longcat::cuda {
namespace {

constexpr int kMaxThreads = 1024;
constexpr int kRowsOfWarps = 4;  // rows a block has where a warp is enough for each

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

/// Numbers of one octet, loaded and not looked at yet, so that several loads are under way at once.
template <class X, class A, bool kWhole>
struct Octet {
  float x[kOctet], add[kOctet], add2[kOctet];

  __device__ __forceinline__ void load(const Row<X, A>& row, int64_t k, int64_t n) {
    loadOctet<kWhole>(row.x + k, n, x);
    if (row.add) loadOctet<kWhole>(row.add + k, n, add);
    if (row.add2) loadOctet<kWhole>(row.add2 + k, n, add2);
  }
  /// x = (x + add) + add2, rounded as the sum is stored, whether or not anybody wants it.
  __device__ __forceinline__ void addUp(const Row<X, A>& row) {
#pragma unroll
    for (int i = 0; i < kOctet; ++i) {
      if (row.add) x[i] += add[i];
      if (row.add2) x[i] += add2[i];
      x[i] = floatOf(numberOf<X>(x[i]));
    }
  }
};

/// Adds the squares of v to `squares`, in order.
__device__ __forceinline__ void addSquares(const float (&v)[kOctet], float& squares) {
#pragma unroll
  for (int i = 0; i < kOctet; ++i) squares = fmaf(v[i], v[i], squares);
}

__device__ __forceinline__ void scaleOctet(float (&v)[kOctet], float scale, const float (&weight)[kOctet]) {
#pragma unroll
  for (int i = 0; i < kOctet; ++i) v[i] = v[i] * scale * weight[i];
}

/// A row has `threads` threads: the whole block, or one of its warps. A thread's first octet stays in registers; of rows wider than that,
/// the rest is read again.
template <class X, class A, class W, bool kWhole>
__global__ void __launch_bounds__(kMaxThreads) normRows(const __grid_constant__ RmsNormParams p, const int threads) {
  awaitPrevious();
  __shared__ float shared[32];
  const int rowsOfBlock = static_cast<int>(blockDim.x) / threads, thread = static_cast<int>(threadIdx.x) % threads;
  const int64_t rows = liveRows(p.rows, p.capacity), width = p.width, first = static_cast<int64_t>(thread) * kOctet, step = static_cast<int64_t>(threads) * kOctet;
  const auto* weights = static_cast<const W*>(p.weight.data);
  for (int64_t r = static_cast<int64_t>(blockIdx.x) * rowsOfBlock + threadIdx.x / threads; r < rows; r += static_cast<int64_t>(gridDim.x) * rowsOfBlock) {
    const Row<X, A> row = rowAt<X, A>(p, r);
    Octet<X, A, kWhole> kept;
    float weight[kOctet], squares = 0;
    if (first < width) {
      kept.load(row, first, width - first);
      loadOctet<kWhole>(weights + first, width - first, weight);
      kept.addUp(row);
      if (row.sum) storeOctet<kWhole>(row.sum + first, width - first, kept.x);
      addSquares(kept.x, squares);
    }
    for (int64_t k = first + step; k < width; k += step) {
      Octet<X, A, kWhole> far;
      far.load(row, k, width - k);
      far.addUp(row);
      if (row.sum) storeOctet<kWhole>(row.sum + k, width - k, far.x);
      addSquares(far.x, squares);
    }
    squares = rowsOfBlock > 1 ? warpSum(squares) : blockSum(squares, shared);
    const float scale = 1.0f / sqrtf(squares / static_cast<float>(width) + p.eps);
    if (first < width) {
      scaleOctet(kept.x, scale, weight);
      storeOctet<kWhole>(row.out + first, width - first, kept.x);
    }
    for (int64_t k = first + step; k < width; k += step) {
      Octet<X, A, kWhole> far;
      if (row.sum) {
        loadOctet<kWhole>(row.sum + k, width - k, far.x);  // x itself may be gone
      } else {
        far.load(row, k, width - k);
        far.addUp(row);
      }
      loadOctet<kWhole>(weights + k, width - k, weight);
      scaleOctet(far.x, scale, weight);
      storeOctet<kWhole>(row.out + k, width - k, far.x);
    }
  }
}

template <class X, class A, class W, bool kWhole>
void launchNorm(const CudaContext& context, const RmsNormParams& p) {
  const int threads = static_cast<int>(std::min<int64_t>(kMaxThreads, ceilDiv(p.width, 32 * kOctet) * 32));
  const int rowsOfBlock = threads == 32 ? kRowsOfWarps : 1;
  const int grid = persistentGrid(context, ceilDiv(p.capacity, rowsOfBlock), threads <= 256 ? 8 : 2);
  launch(context, normRows<X, A, W, kWhole>, grid, threads * rowsOfBlock, 0, p, threads);
}

template <class X, class A, class W>
void launchNorm(const CudaContext& context, const RmsNormParams& p) {
  const bool whole = p.width % kOctet == 0 && rowsAligned(p.x.as<X>(), p.xStride) && rowsAligned(p.add.as<A>(), p.addStride) &&
                     rowsAligned(p.add2.as<A>(), p.add2Stride) && rowsAligned(static_cast<const W*>(p.weight.data), 0) &&
                     rowsAligned(p.sum.as<X>(), p.sumStride) && rowsAligned(p.out.as<A>(), p.outStride);
  if (whole) launchNorm<X, A, W, true>(context, p);
  else launchNorm<X, A, W, false>(context, p);
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
