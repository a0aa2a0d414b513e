// Products in float32 arithmetic: float32 activations or weights, and sizes and addresses that tensor cores cannot take.
//
// k is cut in 8 slices: piece c of 32 numbers belongs to slice c mod 8. A slice is one chain of fused multiply-adds along k; the result is
// the slices' sum in ascending order. Each warp of a block takes a slice; how many rows and outputs the block has changes no chain.
#include "cuda/dependent.cuh"
#include "cuda/gemm_variants.h"
#include "cuda/gemm_work.cuh"
#include "cuda/launch.cuh"

namespace longcat::cuda {
namespace {

constexpr int kSlices = 8, kPiece = 32;

/// kO outputs × kN rows for a block; each thread kOwnO × kOwnN of them (of its warp's slice); kDepth numbers of k staged at once.
template <int kO_, int kN_, int kOwnO_, int kOwnN_, int kDepth_>
struct GenericShape {
  static constexpr int kO = kO_, kN = kN_, kOwnO = kOwnO_, kOwnN = kOwnN_, kDepth = kDepth_;
  static constexpr int kThreadsO = kO / kOwnO;
  static constexpr int kWeightPitch = kOwnO % 4 == 0 ? kO + 4 : kO + 1, kRowPitch = kN + 4;
  static_assert(kThreadsO * (kN / kOwnN) == 32 && kPiece % kDepth == 0 && kOwnN % 4 == 0);
  /// Floats of one warp: the staged numbers, then in the same place its sums.
  static __host__ __device__ constexpr int warpFloats(int matrices) {
    const int staged = kDepth * (matrices * kWeightPitch + kRowPitch), sums = matrices * kO * kN;
    return staged > sums ? staged : sums;
  }
};
using FewRows = GenericShape<16, 8, 1, 4, 32>;
using ManyRows = GenericShape<32, 32, 4, 8, 16>;

__device__ __forceinline__ float weightAt(const float* w, int64_t i) { return w[i]; }
__device__ __forceinline__ float weightAt(const Bf16* w, int64_t i) { return floatOf(w[i]); }
__device__ __forceinline__ float weightAt(const Fp8* w, int64_t i) { return floatOf(w[i]); }

/// One number of each row; zero where there is none.
template <class X, int N>
__device__ __forceinline__ void loadRows(float (&to)[N], const X* x, int64_t stride, const int (&source)[N], bool inside) {
#pragma unroll
  for (int i = 0; i < N; ++i) to[i] = inside && source[i] >= 0 ? floatOf(x[source[i] * stride]) : 0.0f;
}

template <int N>
__device__ __forceinline__ void loadFloats(float (&to)[N], const float* from) {
  if constexpr (N % 4 == 0) {
#pragma unroll
    for (int i = 0; i < N; i += 4) {
      const float4 v = *reinterpret_cast<const float4*>(from + i);
      to[i] = v.x, to[i + 1] = v.y, to[i + 2] = v.z, to[i + 3] = v.w;
    }
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i) to[i] = from[i];
  }
}

template <class Shape, class W, bool kDual>
__global__ void __launch_bounds__(kSlices * 32, kDual ? 1 : 2) gemmGenericKernel(const __grid_constant__ GemmProblem p) {
  awaitPrevious();
  constexpr int kMatrices = kDual ? 2 : 1, kO = Shape::kO, kN = Shape::kN, kDepth = Shape::kDepth;
  constexpr int kWarpFloats = Shape::warpFloats(kMatrices);
  constexpr int kWeightLoads = kO * kDepth / 32, kRowLoads = kN * kDepth / 32;
  extern __shared__ __align__(16) unsigned char shared[];
  const int lane = threadIdx.x & 31, slice = threadIdx.x >> 5;
  const int ownO = lane % Shape::kThreadsO * Shape::kOwnO, ownN = lane / Shape::kThreadsO * Shape::kOwnN;
  float* mine = reinterpret_cast<float*>(shared) + slice * kWarpFloats;
  float* rows = mine + kMatrices * kDepth * Shape::kWeightPitch;
  const int64_t k = depthOf(p), outputs = outputsOf(p), scaleColumns = (k + kFp8Block - 1) / kFp8Block;
  const Work work(p, kN, kO, reinterpret_cast<int*>(shared + kSlices * kWarpFloats * sizeof(float)));

  for (int item = blockIdx.x; item < work.items(); item += gridDim.x) {
    const WorkItem tile = work.at(item);
    float sum[kMatrices][Shape::kOwnO][Shape::kOwnN] = {};
    int source[kRowLoads];  // rows of x of which this thread loads numbers; below 0: none
#pragma unroll
    for (int i = 0; i < kRowLoads; ++i) {
      const int64_t r = tile.row + (lane + 32 * i) / kDepth;
      source[i] = r < tile.rowEnd ? static_cast<int>(sourceRow(p, r)) : -1;
    }
    for (int64_t begin = static_cast<int64_t>(slice) * kPiece; begin < k; begin += kSlices * kPiece) {
#pragma unroll 1
      for (int64_t at = begin; at < begin + kPiece && at < k; at += kDepth) {
        const int64_t column = at + lane % kDepth;
        const bool inside = column < k;
        float w[kMatrices][kWeightLoads], x[kRowLoads];
#pragma unroll
        for (int m = 0; m < kMatrices; ++m) {
          const Matrix matrix = matrixOf(p, tile.group, m == 1);
          float scale = 1;  // a tile lies in one block of outputs, a piece in one of k
          if constexpr (sizeof(W) == 1) scale = matrix.scale[tile.output / kFp8Block * scaleColumns + at / kFp8Block];
#pragma unroll
          for (int i = 0; i < kWeightLoads; ++i) {
            const int64_t output = tile.output + (lane + 32 * i) / kDepth;
            w[m][i] = inside && output < outputs ? weightAt(reinterpret_cast<const W*>(matrix.data), output * k + column) : 0.0f;
            if constexpr (sizeof(W) == 1) w[m][i] *= scale;
          }
        }
        if (p.activation == DType::bf16) loadRows(x, static_cast<const Bf16*>(p.x.data) + column, p.xStride, source, inside);
        else loadRows(x, static_cast<const float*>(p.x.data) + column, p.xStride, source, inside);
        __syncwarp();  // nobody reads what was staged before
#pragma unroll
        for (int m = 0; m < kMatrices; ++m) {
#pragma unroll
          for (int i = 0; i < kWeightLoads; ++i)
            mine[(m * kDepth + lane % kDepth) * Shape::kWeightPitch + (lane + 32 * i) / kDepth] = w[m][i];
        }
#pragma unroll
        for (int i = 0; i < kRowLoads; ++i) rows[lane % kDepth * Shape::kRowPitch + (lane + 32 * i) / kDepth] = x[i];
        __syncwarp();
#pragma unroll 8
        for (int d = 0; d < kDepth; ++d) {
          float a[Shape::kOwnN], b[Shape::kOwnO];
          loadFloats(a, rows + d * Shape::kRowPitch + ownN);
#pragma unroll
          for (int m = 0; m < kMatrices; ++m) {
            loadFloats(b, mine + (m * kDepth + d) * Shape::kWeightPitch + ownO);
#pragma unroll
            for (int o = 0; o < Shape::kOwnO; ++o) {
#pragma unroll
              for (int n = 0; n < Shape::kOwnN; ++n) sum[m][o][n] = fmaf(b[o], a[n], sum[m][o][n]);
            }
          }
        }
      }
    }
    __syncwarp();
#pragma unroll
    for (int m = 0; m < kMatrices; ++m) {
#pragma unroll
      for (int o = 0; o < Shape::kOwnO; ++o) {
#pragma unroll
        for (int n = 0; n < Shape::kOwnN; ++n) mine[(m * kN + ownN + n) * kO + ownO + o] = sum[m][o][n];
      }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < kO * kN; i += blockDim.x) {
      const int64_t output = tile.output + i % kO, r = tile.row + i / kO;
      if (r >= tile.rowEnd || output >= outputs) continue;
      const float* from = reinterpret_cast<const float*>(shared) + i;
      float first = from[0], second = kDual ? from[kO * kN] : 0;
      for (int s = 1; s < kSlices; ++s) {
        first += from[s * kWarpFloats];
        if constexpr (kDual) second += from[s * kWarpFloats + kO * kN];
      }
      storeResult<kDual>(p, r, output, first, second);
    }
    __syncthreads();  // the stages are free for the next item
  }
}

template <class Shape, class W, bool kDual>
void launchGeneric(const CudaContext& context, const GemmProblem& p) {
  const int64_t bytes = kSlices * Shape::warpFloats(kDual ? 2 : 1) * static_cast<int64_t>(sizeof(float)) + prefixBytes(p);
  launch(context, gemmGenericKernel<Shape, W, kDual>, persistentGrid(context, mostItems(p, Shape::kN, Shape::kO), 4), kSlices * 32, bytes, p);
}

template <class W>
void generic(const CudaContext& context, const GemmProblem& p, bool few) {
  const bool dual = p.epilogue == Epilogue::swiglu;
  if (few) dual ? launchGeneric<FewRows, W, true>(context, p) : launchGeneric<FewRows, W, false>(context, p);
  else dual ? launchGeneric<ManyRows, W, true>(context, p) : launchGeneric<ManyRows, W, false>(context, p);
}

}  // namespace

void gemmGeneric(const CudaContext& context, const GemmProblem& p) {
  const bool few = expectedRows(p) <= 16;
  switch (weightDtypeOf(p)) {
    case DType::bf16: generic<Bf16>(context, p, few); break;
    case DType::f8e4m3: generic<Fp8>(context, p, few); break;
    default: generic<float>(context, p, few); break;
  }
}

}  // namespace longcat::cuda
