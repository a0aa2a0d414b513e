// mla_project on a GPU, in five launches: both latents' products; their norms and the cache row; the query's product; its rotation. Few rows on
// Hopper take three: the latents' products are one (sm90/lanes.h), whose lanes of k are added where the norms read them, and the query's rotates
// what it stores (sm90/query.h).
//
// The query's scale factor goes into the normed latent, since the product after it is linear: what comes out of W_qb is then the
// query's finished nope part, and only the rope part is touched again.
#include "ops/mla_project/params.h"

#include <algorithm>

#include "cuda/dependent.cuh"
#include "cuda/gemm.h"
#include "cuda/gemm_formats.cuh"
#include "cuda/launch.cuh"
#include "cuda/reduce.cuh"
#include "cuda/vectors.cuh"
#include "ops/mla_project/packed_latent.cuh"
#include "ops/mla_project/rotation.cuh"
#include "ops/mla_project/sm90/lanes.h"
#include "ops/mla_project/sm90/query.h"

namespace longcat::cuda {
namespace {

constexpr int kNormThreads = 256;
constexpr int kLatents = 2;                         // of a row: the query's and the keys'
constexpr int kRotateWarps = 8;                     // of a block, a head each
constexpr int kLanePairs = 4;                       // pairs that a lane holds in registers
constexpr int64_t kWarpRope = 2 * 32 * kLanePairs;  // the widest rope part that a warp rotates in registers

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

/// Takes a row's octets as they are.
template <class A>
struct PlainRow {
  A* row;
  __device__ __forceinline__ void operator()(int64_t k, int64_t n, const float (&v)[kOctet]) const { store(row + k, n, v); }
};

/// A norm's weights from k on.
__device__ __forceinline__ void loadWeights(const WeightView& weight, int64_t k, float (&v)[kOctet]) {
  const int64_t n = weight.columns - k;
  if (weight.dtype == DType::bf16) load(static_cast<const Bf16*>(weight.data) + k, n, v);
  else load(static_cast<const float*>(weight.data) + k, n, v);
}

/// A row of a latent before its norm, as it is stored.
template <class A>
struct StoredLatent {
  const A* row;

  /// Of row r: the query's latent, or the keys'.
  static __device__ __forceinline__ StoredLatent ofRow(const MlaProjectParams& p, bool isQuery, int64_t r) {
    return {isQuery ? static_cast<const A*>(p.qLatent.data) + r * p.qA.rows : static_cast<const A*>(p.kvLatent.data) + r * p.kvA.rows};
  }
  /// Numbers k … k + 7, the first n of them.
  __device__ __forceinline__ void read(int64_t k, int64_t n, float (&v)[kOctet]) const { load(row + k, n, v); }
  __device__ __forceinline__ float2 pair(int64_t k) const { return {floatOf(row[k]), floatOf(row[k + 1])}; }
};

/// The same as sums over lanes of k that nobody has added yet, in whole octets (sm90/lanes.h). The numbers have the bits that gemm() stores.
template <class A>
struct LatentOfLanes {
  const float* row;
  int64_t laneStride;
  int lanes;
  const WeightView& bias;

  static __device__ __forceinline__ LatentOfLanes ofRow(const MlaProjectParams& p, bool isQuery, int64_t r) {
    const int64_t qRank = p.qA.rows, both = qRank + p.kvA.rows;
    return {p.latentLanes + r * both + (isQuery ? 0 : qRank), p.laneRows * both, lanesOf(p.qA.columns), isQuery ? p.qABias : p.kvABias};
  }
  __device__ __forceinline__ void read(int64_t k, int64_t, float (&v)[kOctet]) const {
    float of[kMaxLanes][kOctet];  // all under way at once
#pragma unroll
    for (int lane = 0; lane < kMaxLanes; ++lane) {
      if (lane < lanes) loadOctet(row + lane * laneStride + k, of[lane]);
    }
#pragma unroll
    for (int i = 0; i < kOctet; ++i) v[i] = of[0][i];
#pragma unroll
    for (int lane = 1; lane < kMaxLanes; ++lane) {
#pragma unroll
      for (int i = 0; i < kOctet; ++i) v[i] = lane < lanes ? v[i] + of[lane][i] : v[i];
    }
#pragma unroll
    for (int i = 0; i < kOctet; ++i) v[i] = finished(v[i], k + i);
  }
  __device__ __forceinline__ float2 pair(int64_t k) const {
    float2 of[kMaxLanes];
#pragma unroll
    for (int lane = 0; lane < kMaxLanes; ++lane) {
      if (lane < lanes) of[lane] = *reinterpret_cast<const float2*>(row + lane * laneStride + k);
    }
    float2 v = of[0];
#pragma unroll
    for (int lane = 1; lane < kMaxLanes; ++lane) {
      if (lane < lanes) v.x += of[lane].x, v.y += of[lane].y;
    }
    return {finished(v.x, k), finished(v.y, k + 1)};
  }

 private:
  __device__ __forceinline__ float finished(float sum, int64_t k) const {
    if (bias.data) sum += loadNumber(bias.data, bias.dtype, k);
    return floatOf(numberOf<A>(sum));
  }
};

/// A block's norm of rows of up to any width. Each thread sums the squares of its octets in ascending order, the block adds the threads' sums.
/// What follows the first octet of a thread is read twice.
template <class Latent>
class Norm {
 public:
  __device__ __forceinline__ explicit Norm(const WeightView& weight) : weight_(weight) {
    if (firstOfThread() < weight_.columns) loadWeights(weight_, firstOfThread(), weights_);
  }
  /// A row's first octets are under way.
  __device__ __forceinline__ void read(const Latent& row) {
    if (firstOfThread() < weight_.columns) row.read(firstOfThread(), weight_.columns - firstOfThread(), first_);
  }
  /// The row's norm times weight times factor, to(k, numbers that are left, octet); it may go where the row is stored.
  template <class To>
  __device__ __forceinline__ void write(const Latent& row, float eps, float factor, const To& to, float* shared) const {
    const int64_t width = weight_.columns;
    float squares = 0, v[kOctet], w[kOctet];
    if (firstOfThread() < width) addSquares(first_, squares);
    for (int64_t k = firstOfThread() + kStride; k < width; k += kStride) {
      row.read(k, width - k, v);
      addSquares(v, squares);
    }
    const float scale = 1.0f / __fsqrt_rn(blockSum(squares, shared) / static_cast<float>(width) + eps);
    const auto finish = [&](int64_t k, const float (&of)[kOctet], const float (&by)[kOctet]) {
#pragma unroll
      for (int i = 0; i < kOctet; ++i) v[i] = of[i] * scale * by[i] * factor;
      to(k, width - k, v);
    };
    if (firstOfThread() < width) finish(firstOfThread(), first_, weights_);
    for (int64_t k = firstOfThread() + kStride; k < width; k += kStride) {
      row.read(k, width - k, v);
      loadWeights(weight_, k, w);
      finish(k, v, w);
    }
  }

 private:
  static constexpr int64_t kStride = kNormThreads * kOctet;
  static __device__ __forceinline__ int64_t firstOfThread() { return static_cast<int64_t>(threadIdx.x) * kOctet; }
  static __device__ __forceinline__ void addSquares(const float (&v)[kOctet], float& squares) {
#pragma unroll
    for (int i = 0; i < kOctet; ++i) squares = __fmaf_rn(v[i], v[i], squares);
  }

  const WeightView& weight_;
  float weights_[kOctet], first_[kOctet];
};

/// The rope key of a row to its place in the cache; the block's last threads, since the first ones have the latent.
template <class Latent, class A>
__device__ __forceinline__ void rotateKey(const MlaProjectParams& p, const Latent& row, int64_t r, A* to) {
  const int64_t half = p.rope / 2, kvRank = p.kvA.rows - p.rope;
  for (int64_t j = kNormThreads - 1 - static_cast<int>(threadIdx.x); j < half; j += kNormThreads) {
    const float2 pair = row.pair(kvRank + 2 * j);
    const Rotation rotated = rotate(pair.x, pair.y, Angle(p.cosSin + r * p.rope, j, half));
    to[j] = numberOf<A>(rotated.a);
    to[half + j] = numberOf<A>(rotated.b);
  }
}

/// Where the cache has a row's latent and rope key.
struct CachePlace {
  int64_t position, slot;
  __device__ __forceinline__ CachePlace(const MlaProjectParams& p, int64_t r) : position(p.positions[r]), slot(p.rowSlot[r]) {}
  /// Which of the cache's rows it is, of a live row.
  __device__ __forceinline__ int64_t row(const MlaProjectParams& p) const {
    const int64_t block = p.blockTables[slot * p.maxBlocks + position / p.blockSize];
    return block * p.blockSize + position % p.blockSize;
  }
};

/// Block y = 0: norms the query's latent of a row, with its scale factor. Block y = 1: writes the row's place in the cache.
template <class A, class Latent, bool PACKED>
__global__ void __launch_bounds__(kNormThreads) finishLatents(const __grid_constant__ MlaProjectParams p) {
  letNextBegin();
  __shared__ float shared[32];
  const bool isQuery = blockIdx.y == 0;
  Norm<Latent> norm(isQuery ? p.qANorm : p.kvANorm);
  awaitPrevious();
  for (int64_t r = blockIdx.x; r < p.capacity; r += gridDim.x) {
    const CachePlace place(p, r);
    const Latent row = Latent::ofRow(p, isQuery, r);
    norm.read(row);  // whether or not it is live: to wait for the count first would take as long again
    if (r >= liveRows(p.rows, p.capacity)) return;
    if (isQuery) {
      norm.write(row, p.eps, p.qScale, PlainRow<A>{static_cast<A*>(p.qLatent.data) + r * p.qA.rows}, shared);
    } else if constexpr (PACKED) {
      const PackedRow<uint8_t> to = p.packedRow(place.row(p));
      rotateKey(p, row, r, reinterpret_cast<Bf16*>(to.ropeKey));
      norm.write(row, p.eps, p.kvScale, PackedLatent{to}, shared);
    } else {
      A* to = static_cast<A*>(p.cache.data) + place.row(p) * p.kvA.rows;
      rotateKey(p, row, r, to + p.kvA.rows - p.rope);
      norm.write(row, p.eps, p.kvScale, PlainRow<A>{to}, shared);
    }
  }
}

/// Rotates the rope part of every query in place: a warp for each head of a row, which holds all pairs before it writes. Grid:
/// (rows, heads in groups of the block's warps).
template <class A>
__global__ void __launch_bounds__(kRotateWarps * 32) rotateQueries(const __grid_constant__ MlaProjectParams p) {
  letNextBegin();
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
      if (j < half) rotated[i] = rotate(floatOf(q[2 * j]), floatOf(q[2 * j + 1]), Angle(p.cosSin + r * p.rope, j, half));
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
__global__ void __launch_bounds__(kNormThreads) rotateWideQueries(const __grid_constant__ MlaProjectParams p) {
  letNextBegin();
  awaitPrevious();
  const int64_t rows = liveRows(p.rows, p.capacity), width = p.nope + p.rope, half = p.rope / 2;
  for (int64_t r = blockIdx.x; r < rows; r += gridDim.x) {
    A* scratch = static_cast<A*>(p.kvLatent.data) + r * p.kvA.rows;
    for (int64_t head = 0; head < p.heads; ++head) {
      A* q = static_cast<A*>(p.q.data) + (r * p.heads + head) * width + p.nope;
      for (int64_t j = threadIdx.x; j < half; j += kNormThreads) {
        const Rotation rotated = rotate(floatOf(q[2 * j]), floatOf(q[2 * j + 1]), Angle(p.cosSin + r * p.rope, j, half));
        scratch[j] = numberOf<A>(rotated.a);
        scratch[half + j] = numberOf<A>(rotated.b);
      }
      __syncthreads();
      for (int64_t j = threadIdx.x; j < p.rope; j += kNormThreads) q[j] = scratch[j];
      __syncthreads();  // before the next head writes the scratch
    }
  }
}

/// out = in Wᵀ + bias, dense rows of the activations' dtype. `scratch`: rows of so many numbers that may be lost.
void project(const CudaContext& context, const MlaProjectParams& p, ConstActivations in, const WeightView& weight, const WeightView& bias,
             Activations out, Activations scratch, int64_t scratchStride) {
  GemmProblem problem = denseProblem(in, weight.columns, p.activation, p.rows, p.capacity, weight, out, weight.rows, p.activation);
  problem.bias = bias;
  useAhead(problem, scratch.data, scratchStride);
  gemm(context, problem);
}

template <class A, class Latent>
void launchFinish(const CudaContext& context, const MlaProjectParams& p) {
  const int rows = persistentGrid(context, p.capacity, 8);
  const auto finish = p.packedCache ? finishLatents<A, Latent, true> : finishLatents<A, Latent, false>;
  launch(context, finish, dim3(rows, kLatents), kNormThreads, 0, p);
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
  if (launchLatentLanes(context, p)) {
    launchFinish<Bf16, LatentOfLanes<Bf16>>(context, p);
  } else {
    project(context, p, p.x, p.qA, p.qABias, p.qLatent, p.q, p.qB.rows);  // q is not yet written
    project(context, p, p.x, p.kvA, p.kvABias, p.kvLatent, p.q, p.qB.rows);
    LONGCAT_ACTIVATION(p.activation, A, launchFinish<A, StoredLatent<A>>(context, p););
  }
  if (launchQuery(context, p)) return;
  project(context, p, p.qLatent, p.qB, {}, p.q, p.qLatent, p.qB.columns);
  LONGCAT_ACTIVATION(p.activation, A, launchRotate<A>(context, p););
}

}  // namespace longcat::cuda
