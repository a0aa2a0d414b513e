// mla_project on a GPU, in five launches: both latents' products; their norms and the cache row; the query's product; its rotation.
//
// The query's scale factor goes into the normed latent, since the product after it is linear: what comes out of W_qb is then the
// query's finished nope part, and only the rope part is touched again.
#include "ops/mla_project/params.h"

#include <algorithm>

#include "cuda/dependent.cuh"
#include "cuda/gemm.h"
#include "cuda/launch.cuh"
#include "cuda/reduce.cuh"
#include "cuda/vectors.cuh"

namespace longcat::cuda {
namespace {

constexpr int kNormThreads = 128;
constexpr int kLatents = 2;                         // of a row: the query's and the keys'
constexpr int kRotateWarps = 8;                     // of a block, a head each
constexpr int kLanePairs = 4;                       // pairs that a lane holds in registers
constexpr int64_t kWarpRope = 2 * 32 * kLanePairs;  // the widest rope part that a warp rotates in registers

struct Rotation {
  float a, b;
};
/// The pair j of a row, rotated: what goes to places j and j + half.
__device__ __forceinline__ Rotation rotate(float a, float b, const float* cosSin, int64_t j, int64_t half) {
  const float c = cosSin[j], s = cosSin[half + j];
  return {a * c - b * s, b * c + a * s};
}

template <class T>
__device__ __forceinline__ bool wholeOctet(const T* p, int64_t n) { return n >= kOctet && reinterpret_cast<uintptr_t>(p) % 16 == 0; }

/// The first n of eight numbers; zeros behind them.
template <class T>
__device__ __forceinline__ void load(const T* from, int64_t n, float (&v)[kOctet]) {
  if (wholeOctet(from, n)) loadOctet<true>(from, n, v);
  else loadOctet<false>(from, n, v);
}
template <class T>
__device__ __forceinline__ void store(T* to, int64_t n, const float (&v)[kOctet]) {
  if (wholeOctet(to, n)) storeOctet<true>(to, n, v);
  else storeOctet<false>(to, n, v);
}

/// A norm's weights from k on.
__device__ __forceinline__ void loadWeights(const WeightView& weight, int64_t k, float (&v)[kOctet]) {
  const int64_t n = weight.columns - k;
  if (weight.dtype == DType::bf16) load(static_cast<const Bf16*>(weight.data) + k, n, v);
  else load(static_cast<const float*>(weight.data) + k, n, v);
}

/// out = RMS-normed x times weight times factor, by the whole block; out may be x. Each thread sums the squares of its octets in
/// ascending order, the block adds the threads' sums.
template <class A>
__device__ void normRow(const A* x, const WeightView& weight, float eps, float factor, A* out, float* shared) {
  const int64_t width = weight.columns, first = static_cast<int64_t>(threadIdx.x) * kOctet, step = kNormThreads * kOctet;
  float squares = 0, v[kOctet];
  for (int64_t k = first; k < width; k += step) {
    load(x + k, width - k, v);
#pragma unroll
    for (int i = 0; i < kOctet; ++i) squares = __fmaf_rn(v[i], v[i], squares);
  }
  const float mean = blockSum(squares, shared) / static_cast<float>(width);
  const float scale = 1.0f / __fsqrt_rn(mean + eps);
  for (int64_t k = first; k < width; k += step) {
    float w[kOctet];
    load(x + k, width - k, v);
    loadWeights(weight, k, w);
#pragma unroll
    for (int i = 0; i < kOctet; ++i) v[i] = v[i] * scale * w[i] * factor;
    store(out + k, width - k, v);
  }
}

/// Block y = 0: norms the query's latent of a row in place. Block y = 1: writes the row's place in the cache.
template <class A>
__global__ void __launch_bounds__(kNormThreads) finishLatents(MlaProjectParams p) {
  awaitPrevious();
  __shared__ float shared[32];
  const int64_t rows = liveRows(p.rows, p.capacity), qRank = p.qA.rows, width = p.kvA.rows, kvRank = width - p.rope, half = p.rope / 2;
  for (int64_t r = blockIdx.x; r < rows; r += gridDim.x) {
    if (blockIdx.y == 0) {
      A* latent = static_cast<A*>(p.qLatent.data) + r * qRank;
      normRow(latent, p.qANorm, p.eps, p.qScale, latent, shared);
      continue;
    }
    const A* latent = static_cast<A*>(p.kvLatent.data) + r * width;
    const int64_t position = p.positions[r];
    const int64_t block = p.blockTables[p.rowSlot[r] * p.maxBlocks + position / p.blockSize];
    A* cacheRow = static_cast<A*>(p.cache.data) + (block * p.blockSize + position % p.blockSize) * width;
    normRow(latent, p.kvANorm, p.eps, p.kvScale, cacheRow, shared);
    for (int64_t j = threadIdx.x; j < half; j += kNormThreads) {
      const A* pair = latent + kvRank + 2 * j;
      const Rotation rotated = rotate(floatOf(pair[0]), floatOf(pair[1]), p.cosSin + r * p.rope, j, half);
      cacheRow[kvRank + j] = numberOf<A>(rotated.a);
      cacheRow[kvRank + half + j] = numberOf<A>(rotated.b);
    }
  }
}

/// Rotates the rope part of every query in place: a warp for each head of a row, which holds all pairs before it writes. Grid:
/// (rows, heads in groups of the block's warps).
template <class A>
__global__ void __launch_bounds__(kRotateWarps * 32) rotateQueries(MlaProjectParams p) {
  awaitPrevious();
  const int lane = threadIdx.x & 31;
  const int64_t head = static_cast<int64_t>(blockIdx.y) * (blockDim.x >> 5) + (threadIdx.x >> 5);
  if (head >= p.heads) return;
  const int64_t rows = liveRows(p.rows, p.capacity), width = p.nope + p.rope, half = p.rope / 2;
  for (int64_t r = blockIdx.x; r < rows; r += gridDim.x) {
    A* q = static_cast<A*>(p.q.data) + (r * p.heads + head) * width + p.nope;
    Rotation rotated[kLanePairs];
#pragma unroll
    for (int i = 0; i < kLanePairs; ++i) {
      const int64_t j = lane + 32 * i;
      if (j < half) rotated[i] = rotate(floatOf(q[2 * j]), floatOf(q[2 * j + 1]), p.cosSin + r * p.rope, j, half);
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < kLanePairs; ++i) {
      const int64_t j = lane + 32 * i;
      if (j < half) {
        q[j] = numberOf<A>(rotated[i].a);
        q[half + j] = numberOf<A>(rotated[i].b);
      }
    }
  }
}

/// The same for rope parts of any width: a block takes a row's heads one after the other, through the row's place in kvLatent, which
/// nothing reads any more.
template <class A>
__global__ void __launch_bounds__(kNormThreads) rotateWideQueries(MlaProjectParams p) {
  awaitPrevious();
  const int64_t rows = liveRows(p.rows, p.capacity), width = p.nope + p.rope, half = p.rope / 2;
  for (int64_t r = blockIdx.x; r < rows; r += gridDim.x) {
    A* scratch = static_cast<A*>(p.kvLatent.data) + r * p.kvA.rows;
    for (int64_t head = 0; head < p.heads; ++head) {
      A* q = static_cast<A*>(p.q.data) + (r * p.heads + head) * width + p.nope;
      for (int64_t j = threadIdx.x; j < half; j += kNormThreads) {
        const Rotation rotated = rotate(floatOf(q[2 * j]), floatOf(q[2 * j + 1]), p.cosSin + r * p.rope, j, half);
        scratch[j] = numberOf<A>(rotated.a);
        scratch[half + j] = numberOf<A>(rotated.b);
      }
      __syncthreads();
      for (int64_t j = threadIdx.x; j < p.rope; j += kNormThreads) q[j] = scratch[j];
      __syncthreads();  // before the next head writes the scratch
    }
  }
}

/// out = in Wᵀ + bias, dense rows of the activations' dtype.
void project(const CudaContext& context, const MlaProjectParams& p, ConstActivations in, const WeightView& weight, const WeightView& bias,
             Activations out) {
  GemmProblem problem = denseProblem(in, weight.columns, p.activation, p.rows, p.capacity, weight, out, weight.rows, p.activation);
  problem.bias = bias;
  gemm(context, problem);
}

template <class A>
void launchFinish(const CudaContext& context, const MlaProjectParams& p) {
  const int rows = persistentGrid(context, p.capacity, 8);
  launch(context, finishLatents<A>, dim3(rows, kLatents), kNormThreads, 0, p);
}

template <class A>
void launchRotate(const CudaContext& context, const MlaProjectParams& p) {
  if (p.rope > kWarpRope) {
    launch(context, rotateWideQueries<A>, persistentGrid(context, p.capacity, 16), kNormThreads, 0, p);
    return;
  }
  const int64_t warps = std::min<int64_t>(kRotateWarps, p.heads), groups = ceilDiv(p.heads, warps);
  const int64_t blocks = 16 * static_cast<int64_t>(context.multiprocessors);
  const int64_t rows = std::clamp<int64_t>(blocks / groups, 1, std::max<int64_t>(1, p.capacity));
  launch(context, rotateQueries<A>, dim3(static_cast<unsigned>(rows), static_cast<unsigned>(groups)), static_cast<int>(32 * warps), 0, p);
}

}  // namespace

void mla_project(const void* params, const CudaContext& context) {
  const auto& p = *static_cast<const MlaProjectParams*>(params);
  project(context, p, p.x, p.qA, p.qABias, p.qLatent);
  project(context, p, p.x, p.kvA, p.kvABias, p.kvLatent);
  LONGCAT_ACTIVATION(p.activation, A, launchFinish<A>(context, p););
  project(context, p, p.qLatent, p.qB, {}, p.q);
  LONGCAT_ACTIVATION(p.activation, A, launchRotate<A>(context, p););
}

}  // namespace longcat::cuda
