// Products of many rows: a block computes kOutputs weight rows × kRows rows, its warps side by side, in a pipeline of asynchronous copies.
//
// The lanes of k pass one after another through the same registers; a finished lane is added to the total. For SwiGLU half of the weight
// rows are the gate's and half the up matrix's, and a warp has both of each output.
#pragma once

#include "cuda/dependent.cuh"
#include "cuda/gemm_formats.cuh"
#include "cuda/gemm_work.cuh"
#include "cuda/launch.cuh"

namespace longcat::cuda {

/// kWarpsM × kWarpsN warps, each kM tiles of 16 weight rows × kN tiles of 8 rows.
template <class Format, bool kDual_, int kWarpsM_, int kWarpsN_, int kM_, int kN_, int kStages_>
struct TileShape {
  using FormatType = Format;
  static constexpr bool kDual = kDual_;
  static constexpr int kWarpsM = kWarpsM_, kWarpsN = kWarpsN_, kM = kM_, kN = kN_, kStages = kStages_;
  static constexpr int kThreads = 32 * kWarpsM * kWarpsN;
  static constexpr int kWeights = kWarpsM * kM * 16, kRows = kWarpsN * kN * 8;
  static constexpr int kOutputs = kDual ? kWeights / 2 : kWeights;
  static constexpr int kWeightBytes = kWeights * 64, kRowBytes = kRows * 64;  // of one plane: 64 bytes of each row
  static constexpr int kStageBytes = kWeightBytes * Format::kWeightPlanes + kRowBytes * Format::kRowPlanes;
  static constexpr int kOwnWeights = kWeights * 4 / kThreads, kOwnRows = kRows * 4 / kThreads;  // rows that a thread copies a quarter of
  static_assert(kOwnWeights * kThreads == kWeights * 4 && kOwnRows * kThreads == kRows * 4);
  static_assert(!kDual || kM % 2 == 0);
  static int64_t sharedBytes(const GemmProblem& p) { return kStages * static_cast<int64_t>(kStageBytes) + prefixBytes(p); }

  /// Weight row (of the block's) where tile i of a warp begins.
  static __device__ __forceinline__ int tileBegin(int warpM, int i) {
    if constexpr (kDual) return (i < kM / 2 ? 0 : kOutputs) + (warpM * (kM / 2) + i % (kM / 2)) * 16;
    else return (warpM * kM + i) * 16;
  }
};

template <class Shape>
__global__ void __launch_bounds__(Shape::kThreads) gemmTile(const __grid_constant__ GemmProblem p) {
  awaitPrevious();
  using Format = typename Shape::FormatType;
  constexpr int kM = Shape::kM, kN = Shape::kN, kStages = Shape::kStages;
  constexpr bool kDual = Shape::kDual;
  extern __shared__ __align__(16) unsigned char shared[];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, t = lane & 3;
  const int warpM = warp % Shape::kWarpsM, warpN = warp / Shape::kWarpsM;
  const int64_t k = depthOf(p), outputs = outputsOf(p), scaleColumns = k / kFp8Block;
  const int steps = static_cast<int>(k / Format::kStep), lanes = lanesOf(k);
  const Work work(p, Shape::kRows, Shape::kOutputs, reinterpret_cast<int*>(shared + kStages * Shape::kStageBytes));
  const int copyRow = threadIdx.x >> 2, copyPart = threadIdx.x & 3;

  for (int item = blockIdx.x; item < work.items(); item += gridDim.x) {
    const WorkItem tile = work.at(item);
    const unsigned char* weight[Shape::kOwnWeights];
    bool hasWeight[Shape::kOwnWeights];
#pragma unroll
    for (int i = 0; i < Shape::kOwnWeights; ++i) {
      const int at = copyRow + i * (Shape::kThreads / 4);
      const bool second = kDual && at >= Shape::kOutputs;
      const int64_t output = tile.output + (second ? at - Shape::kOutputs : at);
      hasWeight[i] = output < outputs;
      weight[i] = matrixOf(p, tile.group, second).data + (output < outputs ? output : 0) * k * Format::kWeightBytes;
    }
    const unsigned char* row[Shape::kOwnRows];
    bool hasRow[Shape::kOwnRows];
#pragma unroll
    for (int i = 0; i < Shape::kOwnRows; ++i) {
      const int64_t r = tile.row + copyRow + i * (Shape::kThreads / 4);
      hasRow[i] = r < tile.rowEnd;
      row[i] = static_cast<const unsigned char*>(p.x.data) + (hasRow[i] ? sourceRow(p, r) : 0) * p.xStride * 2;
    }
    const float* scales[kM];
    if constexpr (Format::kScaled) {
#pragma unroll
      for (int i = 0; i < kM; ++i) {
        const int at = Shape::tileBegin(warpM, i);
        const bool second = kDual && at >= Shape::kOutputs;
        const int64_t output = tile.output + (second ? at - Shape::kOutputs : at);
        scales[i] = matrixOf(p, tile.group, second).scale + (output < outputs ? output / kFp8Block : 0) * scaleColumns;
      }
    }

    const auto copy = [&](int step, int stage) {
      unsigned char* to = shared + stage * Shape::kStageBytes + copyRow * 64 + copyPart * 16;
      const int64_t weightAt = static_cast<int64_t>(step) * Format::kStep * Format::kWeightBytes, rowAt = static_cast<int64_t>(step) * Format::kStep * 2;
#pragma unroll
      for (int plane = 0; plane < Format::kWeightPlanes; ++plane) {
#pragma unroll
        for (int i = 0; i < Shape::kOwnWeights; ++i)
          copyAsync16(to + plane * Shape::kWeightBytes + i * (Shape::kThreads * 16), weight[i] + weightAt + Format::weightOffset(plane, copyPart), hasWeight[i]);
      }
      to += Format::kWeightPlanes * Shape::kWeightBytes;
#pragma unroll
      for (int plane = 0; plane < Format::kRowPlanes; ++plane) {
#pragma unroll
        for (int i = 0; i < Shape::kOwnRows; ++i)
          copyAsync16(to + plane * Shape::kRowBytes + i * (Shape::kThreads * 16), row[i] + rowAt + Format::rowOffset(plane, copyPart), hasRow[i]);
      }
    };
    float next[kM] = {};
    const auto loadScales = [&](int step) {
      if constexpr (Format::kScaled) {
#pragma unroll
        for (int i = 0; i < kM; ++i) next[i] = __ldg(scales[i] + step);
      }
    };

#pragma unroll
    for (int s = 0; s < kStages - 1; ++s) {
      if (s < steps) copy(s, s);
      commitCopies();
    }
    loadScales(0);
    float total[kM][kN][4] = {}, sum[kM][kN][4] = {};
    int stage = 0, laneOfK = 0, laneEnd = laneBegin(steps, 1, lanes);
    for (int step = 0; step < steps; ++step) {
      waitCopies<kStages - 2>();
      __syncthreads();  // this step's numbers are there for all; nobody reads the step before any more
      if (step + kStages - 1 < steps) copy(step + kStages - 1, stage == 0 ? kStages - 1 : stage - 1);
      commitCopies();
      float scale[kM];
#pragma unroll
      for (int i = 0; i < kM; ++i) scale[i] = next[i];
      if (step + 1 < steps) loadScales(step + 1);
      const unsigned char* weights = shared + stage * Shape::kStageBytes + g * 64 + t * 16;
      const unsigned char* rows = weights + Format::kWeightPlanes * Shape::kWeightBytes + warpN * kN * 8 * 64;
      Format::step(
          sum, scale,
          [&](int i, int half, int plane) {
            return *reinterpret_cast<const uint4*>(weights + plane * Shape::kWeightBytes + (Shape::tileBegin(warpM, i) + 8 * half) * 64);
          },
          [&](int n, int plane) { return *reinterpret_cast<const uint4*>(rows + plane * Shape::kRowBytes + n * 8 * 64); });
      if (step + 1 == laneEnd) {
#pragma unroll
        for (int i = 0; i < kM; ++i) {
#pragma unroll
          for (int n = 0; n < kN; ++n) {
#pragma unroll
            for (int e = 0; e < 4; ++e) {
              total[i][n][e] = laneOfK == 0 ? sum[i][n][e] : total[i][n][e] + sum[i][n][e];
              sum[i][n][e] = 0;
            }
          }
        }
        ++laneOfK;
        laneEnd = laneBegin(steps, laneOfK + 1, lanes);
      }
      stage = stage + 1 == kStages ? 0 : stage + 1;
    }
    waitCopies<0>();

    constexpr int kStored = kDual ? kM / 2 : kM;
#pragma unroll
    for (int i = 0; i < kStored; ++i) {
#pragma unroll
      for (int n = 0; n < kN; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int64_t output = tile.output + Shape::tileBegin(warpM, i) + g + (e >> 1) * 8;
          const int64_t r = tile.row + (warpN * kN + n) * 8 + 2 * t + (e & 1);
          if (r < tile.rowEnd && output < outputs) storeResult<kDual>(p, r, output, total[i][n][e], kDual ? total[i + kM - kStored][n][e] : 0);
        }
      }
    }
    __syncthreads();  // the stages are free for the next item
  }
}

/// Whether large tiles are worth it: enough rows in a group, and enough tiles for the card.
template <class Shape>
bool fills(const CudaContext& context, const GemmProblem& p, int64_t rows) {
  return p.groupStart ? 2 * rows > 3 * Shape::kRows : rows > 64 && mostItems(p, Shape::kRows, Shape::kOutputs) >= context.multiprocessors;
}

/// Launches, unless the block would need more shared memory than there is.
template <class Shape>
bool launchTile(const CudaContext& context, const GemmProblem& p) {
  const int64_t bytes = Shape::sharedBytes(p);
  if (bytes > context.sharedBytes) return false;
  const int perMultiprocessor = static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(512 / Shape::kThreads, (220 << 10) / bytes)));
  launch(context, gemmTile<Shape>, persistentGrid(context, mostItems(p, Shape::kRows, Shape::kOutputs), perMultiprocessor), Shape::kThreads, bytes, p);
  return true;
}

}  // namespace longcat::cuda
