// rms_norm on a GPU: a warp or a block a row, which stays in registers from its only read on (rows beyond kWidest numbers are read twice).
// Thread t of a row's n threads has the quads t, t + n, … of four numbers, so that neighbours touch neighbouring memory; it sums their
// squares in ascending order, and a butterfly over the lanes, then over the warps, folds the threads. n depends on the width alone, so that
// is the order of every sum.
#include "ops/rms_norm/params.h"

#include "cuda/dependent.cuh"
#include "cuda/launch.cuh"
#include "cuda/reduce.cuh"
#include "cuda/vectors.cuh"

namespace longcat::cuda {
namespace {

constexpr int kQuad = 4;         // numbers a thread moves at once
constexpr int kQuads = 3;        // of a row in a thread's registers
constexpr int kThreads = 512;    // of a block; of a row at most
constexpr int64_t kWidest = kThreads * kQuads * kQuad;
constexpr int kWideThreads = 1024;  // of a wider row
constexpr int kBlocks = 2;       // of a multiprocessor at the same time, at least

/// As they are stored, loaded and stored at once; in whole registers, two bfloat16 each, until somebody asks for a number.
template <class T>
struct Quad;
template <>
struct alignas(16) Quad<float> {
  float value[kQuad];
  __device__ __forceinline__ float at(int i) const { return value[i]; }
  __device__ __forceinline__ void put(int i, float v) { value[i] = v; }
};
template <>
struct alignas(8) Quad<Bf16> {
  uint32_t pair[kQuad / 2];
  __device__ __forceinline__ float at(int i) const { return __uint_as_float(i % 2 ? pair[i / 2] & 0xffff0000u : pair[i / 2] << 16); }
  __device__ __forceinline__ void put(int i, float v) {
    const uint32_t bits = __bfloat16_as_ushort(numberOf<Bf16>(v));
    pair[i / 2] = i % 2 ? pair[i / 2] | bits << 16 : bits;
  }
};

/// The first n (at most four) numbers; zeros behind. kWhole: there are four, and the address is a multiple of their size.
template <bool kWhole, class T>
__device__ __forceinline__ Quad<T> loadQuad(const T* from, int n) {
  Quad<T> quad;
  if constexpr (kWhole) {
    quad = *reinterpret_cast<const Quad<T>*>(from);
  } else {
#pragma unroll
    for (int i = 0; i < kQuad; ++i) quad.put(i, i < n ? floatOf(from[i]) : 0.0f);
  }
  return quad;
}
template <bool kWhole, class T>
__device__ __forceinline__ void storeQuad(T* to, int n, const float (&v)[kQuad]) {
  if constexpr (kWhole) {
    Quad<T> quad;
#pragma unroll
    for (int i = 0; i < kQuad; ++i) quad.put(i, v[i]);
    *reinterpret_cast<Quad<T>*>(to) = quad;
  } else {
#pragma unroll
    for (int i = 0; i < kQuad; ++i) {
      if (i < n) to[i] = numberOf<T>(v[i]);
    }
  }
}

/// Q quads of a row from `first` on, as far as the row goes.
template <bool kWhole, int Q>
struct Quads {
  int first, step, width;

  /// f(q, k, numbers left) for each quad of the row.
  template <class F>
  __device__ __forceinline__ void forEach(const F& f) const {
#pragma unroll
    for (int q = 0; q < Q; ++q) {
      const int k = first + q * step;
      if (k < width) f(q, k, width - k);
    }
  }
  template <class T>
  __device__ __forceinline__ void load(const T* row, Quad<T> (&to)[Q]) const {
    forEach([&](int q, int k, int left) { to[q] = loadQuad<kWhole>(row + k, left); });
  }
  template <class T>
  __device__ __forceinline__ void store(T* row, const float (&v)[Q][kQuad]) const {
    forEach([&](int q, int k, int left) { storeQuad<kWhole>(row + k, left, v[q]); });
  }
};

/// f(q, i) for each number of Q quads.
template <int Q, class F>
__device__ __forceinline__ void forNumbers(const F& f) {
#pragma unroll
  for (int q = 0; q < Q; ++q) {
#pragma unroll
    for (int i = 0; i < kQuad; ++i) f(q, i);
  }
}

template <int Q>
__device__ __forceinline__ void addSquares(const float (&v)[Q][kQuad], float& squares) {
  forNumbers<Q>([&](int q, int i) { squares = fmaf(v[q][i], v[q][i], squares); });
}
template <class W, int Q>
__device__ __forceinline__ void scaleBy(float scale, const Quad<W> (&weight)[Q], float (&v)[Q][kQuad]) {
  forNumbers<Q>([&](int q, int i) { v[q][i] = v[q][i] * scale * weight[q].at(i); });
}

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

/// What goes into the sum, loaded and not looked at yet, so that all loads are under way at once. Zeros where there is nothing.
template <class X, class A, int Q>
struct Terms {
  Quad<X> x[Q] = {};
  Quad<A> add[Q] = {}, add2[Q] = {};

  template <bool kWhole>
  __device__ __forceinline__ void load(const Quads<kWhole, Q>& quads, const Row<X, A>& row) {
    quads.load(row.x, x);
    if (row.add) quads.load(row.add, add);
    if (row.add2) quads.load(row.add2, add2);
  }
  /// v = (x + add) + add2, rounded as the sum is stored, whether or not anybody wants it.
  __device__ __forceinline__ void addUp(const Row<X, A>& row, float (&v)[Q][kQuad]) const {
    forNumbers<Q>([&](int q, int i) { v[q][i] = x[q].at(i); });
    if (row.add) forNumbers<Q>([&](int q, int i) { v[q][i] += add[q].at(i); });
    if (row.add2) forNumbers<Q>([&](int q, int i) { v[q][i] += add2[q].at(i); });
    forNumbers<Q>([&](int q, int i) { v[q][i] = floatOf(numberOf<X>(v[q][i])); });
  }
};

/// The sum over a row's threads, to all of them; a block calls once.
__device__ __forceinline__ float rowSum(float v, int threads) {
  __shared__ float shared[32];
  v = warpSum(v);
  if (threads == 32) return v;
  const int lane = static_cast<int>(threadIdx.x) & 31;
  if (lane == 0) shared[threadIdx.x >> 5] = v;
  __syncthreads();
  return warpSum(lane < threads / 32 ? shared[lane] : 0.0f);
}

/// A row has `threads` threads: the whole block, or one of its warps.
template <class X, class A, class W, bool kWhole>
__global__ void __launch_bounds__(kThreads, sizeof(A) == 2 ? kBlocks : 1) normRows(const __grid_constant__ RmsNormParams p, const int threads) {
  letNextBegin();
  const int64_t r = static_cast<int64_t>(blockIdx.x) * (static_cast<int>(blockDim.x) / threads) + static_cast<int>(threadIdx.x) / threads;
  if (r >= p.capacity) return;
  const Row<X, A> row = rowAt<X, A>(p, r);
  const Quads<kWhole, kQuads> quads{static_cast<int>(threadIdx.x) % threads * kQuad, threads * kQuad, static_cast<int>(p.width)};
  Terms<X, A, kQuads> terms;
  Quad<W> weight[kQuads] = {};
  quads.load(static_cast<const W*>(p.weight.data), weight);
  awaitPrevious();
  terms.load(quads, row);  // whether or not it is live: to wait for the count first would take as long again
  if (r >= liveRows(p.rows, p.capacity)) return;
  float v[kQuads][kQuad], squares = 0;
  terms.addUp(row, v);
  if (row.sum) quads.store(row.sum, v);
  addSquares(v, squares);
  scaleBy(rsqrtf(rowSum(squares, threads) / static_cast<float>(p.width) + p.eps), weight, v);
  quads.store(row.out, v);
}

/// Rows of any width, a block each; what is summed is made again for the norm, or read where it was stored.
template <class X, class A, class W, bool kWhole>
__global__ void __launch_bounds__(kWideThreads) normWideRows(const __grid_constant__ RmsNormParams p) {
  awaitPrevious();
  const int64_t r = blockIdx.x;
  if (r >= liveRows(p.rows, p.capacity)) return;
  const int width = static_cast<int>(p.width);
  const Row<X, A> row = rowAt<X, A>(p, r);
  float v[1][kQuad], squares = 0;
  for (int k = static_cast<int>(threadIdx.x) * kQuad; k < width; k += kWideThreads * kQuad) {
    const Quads<kWhole, 1> quad{k, 0, width};
    Terms<X, A, 1> terms;
    terms.load(quad, row);
    terms.addUp(row, v);
    if (row.sum) quad.store(row.sum, v);
    addSquares(v, squares);
  }
  const float scale = rsqrtf(rowSum(squares, kWideThreads) / static_cast<float>(width) + p.eps);
  const Row<X, A> summed = row.sum ? Row<X, A>{row.sum, nullptr, nullptr, nullptr, row.out} : row;  // x itself may be gone
  for (int k = static_cast<int>(threadIdx.x) * kQuad; k < width; k += kWideThreads * kQuad) {
    const Quads<kWhole, 1> quad{k, 0, width};
    Terms<X, A, 1> terms;
    Quad<W> weight[1];
    terms.load(quad, summed);
    quad.load(static_cast<const W*>(p.weight.data), weight);
    terms.addUp(summed, v);
    scaleBy(scale, weight, v);
    quad.store(row.out, v);
  }
}

template <class X, class A, class W, bool kWhole>
void launchNorm(const CudaContext& context, const RmsNormParams& p) {
  if (p.width > kWidest) {
    launch(context, normWideRows<X, A, W, kWhole>, static_cast<unsigned>(p.capacity), kWideThreads, 0, p);
    return;
  }
  const int threads = static_cast<int>(ceilDiv(p.width, 32 * kQuads * kQuad) * 32), rowsOfBlock = threads == 32 ? kThreads / 32 : 1;
  launch(context, normRows<X, A, W, kWhole>, static_cast<unsigned>(ceilDiv(p.capacity, rowsOfBlock)), threads * rowsOfBlock, 0, p, threads);
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
