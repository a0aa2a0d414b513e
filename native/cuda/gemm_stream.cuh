// Products of few rows: weights pass once from memory through the tensor cores.
//
// A block owns kM · 16 outputs (of both matrices for SwiGLU) and up to kR · 8 rows; each of its warps takes one lane of k. A thread copies
// exactly the pieces that it will use, so that shared memory is a queue of its own: no barrier is in the loop, and as much is in flight as
// the queue holds. The lanes' sums are added through shared memory in ascending order.
#pragma once

#include "cuda/dependent.cuh"
#include "cuda/gemm_formats.cuh"
#include "cuda/gemm_work.cuh"
#include "cuda/launch.cuh"

namespace longcat::cuda {

template <class Format, bool kDual, int kM, int kR>
struct StreamShape {
  static constexpr int kTiles = kDual ? 2 * kM : kM;  // m16 tiles of weights
  static constexpr int kPieces = 2 * kTiles * Format::kWeightPlanes + kR * Format::kRowPlanes;
  static constexpr int kStageBytes = kPieces * 512;
  static constexpr int kBudget = Format::kScaled ? 24 << 10 : 12 << 10;  // of one warp
  static constexpr int kStages = kBudget / kStageBytes < 8 ? kBudget / kStageBytes : 8;
  static constexpr int kWarpBytes = kStages * kStageBytes;
  static constexpr int kBlocks = kMaxLanes * kWarpBytes > 113 << 10 ? 1 : 2;  // of a multiprocessor
  static_assert(kStages >= 2 && kTiles * kR * 512 <= kWarpBytes);
  static int64_t sharedBytes(const GemmProblem& p) { return lanesOf(depthOf(p)) * static_cast<int64_t>(kWarpBytes) + prefixBytes(p); }
};

template <class Format, bool kDual, int kM, int kR>
__global__ void __launch_bounds__(kMaxLanes * 32, StreamShape<Format, kDual, kM, kR>::kBlocks) gemmStream(const __grid_constant__ GemmProblem p) {
  awaitPrevious();
  using Shape = StreamShape<Format, kDual, kM, kR>;
  constexpr int kTiles = Shape::kTiles, kStages = Shape::kStages;
  extern __shared__ __align__(16) unsigned char shared[];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, lanes = blockDim.x >> 5, g = lane >> 2, t = lane & 3;
  const int64_t k = depthOf(p), outputs = outputsOf(p), scaleColumns = k / kFp8Block;
  const int steps = static_cast<int>(k / Format::kStep), first = laneBegin(steps, warp, lanes), end = laneBegin(steps, warp + 1, lanes);
  unsigned char* queue = shared + warp * Shape::kWarpBytes + lane * 16;
  const Work work(p, kR * 8, kM * 16, reinterpret_cast<int*>(shared + lanes * Shape::kWarpBytes));

  for (int item = blockIdx.x; item < work.items(); item += gridDim.x) {
    const WorkItem tile = work.at(item);
    const unsigned char* weight[kTiles][2];
    bool hasWeight[kTiles][2];
    const float* scales[kTiles];
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      const Matrix matrix = matrixOf(p, tile.group, i >= kM);
      const int64_t begin = tile.output + (i % kM) * 16;
      if constexpr (Format::kScaled) scales[i] = matrix.scale + (begin < outputs ? begin / kFp8Block : 0) * scaleColumns;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int64_t output = begin + g + 8 * half;
        hasWeight[i][half] = output < outputs;
        weight[i][half] = matrix.data + (output < outputs ? output : 0) * k * Format::kWeightBytes;
      }
    }
    const unsigned char* row[kR];
    bool hasRow[kR];
#pragma unroll
    for (int n = 0; n < kR; ++n) {
      const int64_t r = tile.row + n * 8 + g;
      hasRow[n] = r < tile.rowEnd;
      row[n] = static_cast<const unsigned char*>(p.x.data) + (hasRow[n] ? sourceRow(p, r) : 0) * p.xStride * 2;
    }

    const auto copy = [&](int step, int stage) {
      unsigned char* to = queue + stage * Shape::kStageBytes;
      const int64_t weightAt = static_cast<int64_t>(step) * Format::kStep * Format::kWeightBytes, rowAt = static_cast<int64_t>(step) * Format::kStep * 2;
#pragma unroll
      for (int i = 0; i < kTiles; ++i) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
#pragma unroll
          for (int plane = 0; plane < Format::kWeightPlanes; ++plane)
            copyAsync16(to + ((i * 2 + half) * Format::kWeightPlanes + plane) * 512, weight[i][half] + weightAt + Format::weightOffset(plane, t), hasWeight[i][half]);
        }
      }
#pragma unroll
      for (int n = 0; n < kR; ++n) {
#pragma unroll
        for (int plane = 0; plane < Format::kRowPlanes; ++plane)
          copyAsync16(to + (2 * kTiles * Format::kWeightPlanes + n * Format::kRowPlanes + plane) * 512, row[n] + rowAt + Format::rowOffset(plane, t), hasRow[n]);
      }
    };
    float next[kTiles] = {};
    const auto loadScales = [&](int step) {
      if constexpr (Format::kScaled) {
#pragma unroll
        for (int i = 0; i < kTiles; ++i) next[i] = __ldg(scales[i] + step);
      }
    };

#pragma unroll
    for (int s = 0; s < kStages - 1; ++s) {
      if (first + s < end) copy(first + s, s);
      commitCopies();
    }
    if (first < end) loadScales(first);
    float sum[kTiles][kR][4] = {};
    int stage = 0;
    for (int step = first; step < end; ++step) {
      waitCopies<kStages - 2>();
      if (step + kStages - 1 < end) copy(step + kStages - 1, stage == 0 ? kStages - 1 : stage - 1);  // where the step before was
      commitCopies();
      float scale[kTiles];
#pragma unroll
      for (int i = 0; i < kTiles; ++i) scale[i] = next[i];
      if (step + 1 < end) loadScales(step + 1);
      const unsigned char* from = queue + stage * Shape::kStageBytes;
      Format::step(
          sum, scale,
          [&](int i, int half, int plane) { return *reinterpret_cast<const uint4*>(from + ((i * 2 + half) * Format::kWeightPlanes + plane) * 512); },
          [&](int n, int plane) { return *reinterpret_cast<const uint4*>(from + (2 * kTiles * Format::kWeightPlanes + n * Format::kRowPlanes + plane) * 512); });
      stage = stage + 1 == kStages ? 0 : stage + 1;
    }
    waitCopies<0>();

    // Each lane's sums over its queue, fragments as they are; then the lanes in ascending order.
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
#pragma unroll
      for (int n = 0; n < kR; ++n)
        *reinterpret_cast<float4*>(queue + (i * kR + n) * 512) = make_float4(sum[i][n][0], sum[i][n][1], sum[i][n][2], sum[i][n][3]);
    }
    __syncthreads();
    const auto total = [&](int fragment, int of) {
      const unsigned char* from = shared + fragment * 512 + of * 16;
      float4 all = *reinterpret_cast<const float4*>(from);
      for (int l = 1; l < lanes; ++l) {
        const float4 v = *reinterpret_cast<const float4*>(from + l * Shape::kWarpBytes);
        all.x += v.x, all.y += v.y, all.z += v.z, all.w += v.w;
      }
      return all;
    };
    for (int unit = threadIdx.x; unit < kM * kR * 32; unit += blockDim.x) {
      const int of = unit & 31, fragment = unit >> 5, m = fragment / kR, n = fragment % kR;
      const float4 a = total(fragment, of), b = kDual ? total(fragment + kM * kR, of) : float4{};
      const int64_t output = tile.output + m * 16 + (of >> 2), r = tile.row + n * 8 + 2 * (of & 3);
      const auto store = [&](int64_t toRow, int64_t toOutput, float sumOf, float second) {
        if (toRow < tile.rowEnd && toOutput < outputs) storeResult<kDual>(p, toRow, toOutput, sumOf, second);
      };
      store(r, output, a.x, b.x);
      store(r + 1, output, a.y, b.y);
      store(r, output + 8, a.z, b.z);
      store(r + 1, output + 8, a.w, b.w);
    }
    __syncthreads();  // the queues are free for the next item
  }
}

/// Launches, unless the block would need more shared memory than there is.
template <class Format, bool kDual, int kM, int kR>
bool launchStream(const CudaContext& context, const GemmProblem& p) {
  const int64_t bytes = StreamShape<Format, kDual, kM, kR>::sharedBytes(p);
  if (bytes > context.sharedBytes) return false;
  const int threads = 32 * lanesOf(depthOf(p));
  const int perMultiprocessor = static_cast<int>(std::max<int64_t>(1, std::min<int64_t>({1536 / threads, 32, (220 << 10) / bytes})));
  launch(context, gemmStream<Format, kDual, kM, kR>, persistentGrid(context, mostItems(p, kR * 8, kM * 16), perMultiprocessor), threads, bytes, p);
  return true;
}

}  // namespace longcat::cuda
