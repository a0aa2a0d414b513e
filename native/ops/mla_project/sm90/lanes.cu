// Both latents' products on Hopper, for few rows: as many blocks as there are lanes of k in tiles of outputs, each with one of them, so that
// two thousand outputs occupy the whole card, and two blocks of a multiprocessor hold all weights that it will ever read. Nothing is added
// across blocks here: the kernel that norms the latents reads all lanes anyway.
//
// A warp copies weights and rows through a ring; for few rows the ring is the whole lane, all asked for before anything waits, the weights
// even before the rows are there. A warpgroup multiplies: weights are wgmma's A, 64 outputs, rows its B. The order of a lane's sum is that of
// all products on this card (docs/kernels.md): bfloat16: a chain of sixteen numbers after the other; FP8: block of 128 by block of 128, scale
// times a chain of eight products.
#include "ops/mla_project/sm90/lanes.h"

#include "cuda/dependent.cuh"
#include "cuda/gemm_formats.cuh"
#include "cuda/hopper/copy.cuh"
#include "cuda/hopper/tensor_map.h"
#include "cuda/hopper/wgmma.cuh"
#include "cuda/launch.cuh"
#include "cuda/vectors.cuh"

namespace longcat::cuda {
namespace {

constexpr int kOutputs = 64, kMultipliers = 128, kThreads = kMultipliers + 32;
constexpr int kBoxColumns = 64;            // of a box of rows: 128 bytes
constexpr int kSharedBytes = 113 << 10;    // of a block, so that a multiprocessor has two
constexpr int kMostStages = 12;

/// Descriptors count in 16 bytes.
__device__ __forceinline__ uint64_t behind(uint64_t descriptor, int bytes) { return descriptor + static_cast<uint64_t>(bytes >> 4); }

/// A step, 128 bytes of each output's weights, and its products. multiply() calls release() when the tensor cores have read all of the step, or
/// (kReleasesBefore) of the one before.
template <class W>
struct Step;

template <>
struct Step<Bf16> {
  static constexpr int kNumbers = 64, kRowBoxes = 1, kMostRows = 128;
  static constexpr bool kReleasesBefore = true;

  template <int kRows, class F>
  static __device__ __forceinline__ void multiply(float (&sum)[kRows / 2], const unsigned char* weights, unsigned char* rows, float, const F& release) {
    beginProducts();
#pragma unroll
    for (int c = 0; c < kNumbers / 16; ++c) productBf16<kRows>(sum, behind(rowsOfK(weights), 32 * c), behind(rowsOfK(rows), 32 * c));
    endProducts();
    waitProducts<1>();
    release();
  }
};

/// Codes become bfloat16 on their way to registers. What ldmatrix hands thread q of a quad are codes 4q … 4q + 3 of sixteen, which wgmma takes for
/// numbers 2q, 2q + 1, 2q + 8 and 2q + 9: the rows' numbers are put in that order first.
template <>
struct Step<Fp8> {
  static constexpr int kNumbers = kFp8Block, kRowBoxes = 2, kMostRows = 64;
  static constexpr bool kReleasesBefore = false;

  template <int kRows>
  static __device__ __forceinline__ void reorder(unsigned char* rows) {
    for (int i = threadIdx.x; i < kRows * kFp8Block / 16; i += kMultipliers) {
      const int row = i / 4, piece = i % 4 * 2;  // rows of the second box follow those of the first
      uint4 *low = reinterpret_cast<uint4*>(rows + swizzled128(row, piece)), *high = reinterpret_cast<uint4*>(rows + swizzled128(row, piece + 1));
      const uint4 a = *low, b = *high;
      *low = {a.x, a.z, b.x, b.z};
      *high = {a.y, a.w, b.y, b.w};
    }
    fenceAsyncProxy();
    syncSome(1, kMultipliers);
  }

  template <int kRows, class F>
  static __device__ __forceinline__ void multiply(float (&sum)[kRows / 2], const unsigned char* weights, unsigned char* rows, float scale, const F& release) {
    reorder<kRows>(rows);
    const int lane = static_cast<int>(threadIdx.x) & 31, place = swizzled128(static_cast<int>(threadIdx.x) / 32 * 16 + (lane & 15), lane >> 4);
    uint32_t a[8][4];
#pragma unroll
    for (int x = 0; x < 4; ++x) {
      uint32_t codes[4];  // of outputs g and g + 8: sixteen numbers of k, and the next sixteen
      loadMatrix4(codes, weights + (place ^ (x << 5)));
      bf16OfFp8(codes[0], a[2 * x][0], a[2 * x][2]);
      bf16OfFp8(codes[1], a[2 * x][1], a[2 * x][3]);
      bf16OfFp8(codes[2], a[2 * x + 1][0], a[2 * x + 1][2]);
      bf16OfFp8(codes[3], a[2 * x + 1][1], a[2 * x + 1][3]);
    }
    float part[kRows / 2];
    beginProducts();
#pragma unroll
    for (int c = 0; c < 8; ++c) productBf16<kRows>(part, a[c], behind(rowsOfK(rows), c / 4 * kRows * 128 + c % 4 * 32), c > 0);
    endProducts();
    waitProducts<0>();
    release();
    holdRegisters(part);
    holdRegisters(a);
#pragma unroll
    for (int i = 0; i < kRows / 2; ++i) sum[i] = fmaf(scale, part[i], sum[i]);
  }
};

/// Shared memory of a block: its barriers, then a ring of steps.
template <class W, int kRows>
struct Memory {
  static constexpr int kWeightBytes = kOutputs * 128, kRowBoxBytes = kRows * 128, kStageBytes = kWeightBytes + Step<W>::kRowBoxes * kRowBoxBytes;
  static constexpr int kBarrierBytes = 1024, kFit = (kSharedBytes - kBarrierBytes) / kStageBytes, kStages = kFit < kMostStages ? kFit : kMostStages;
  static_assert(kStages >= 2 && kStageBytes % 1024 == 0);

  unsigned char* base;
  __device__ __forceinline__ unsigned char* weights(int stage) const { return base + kBarrierBytes + stage * kStageBytes; }
  __device__ __forceinline__ unsigned char* rows(int stage) const { return weights(stage) + kWeightBytes; }
  __device__ __forceinline__ Barrier* full(int stage) const { return reinterpret_cast<Barrier*>(base) + stage; }
  __device__ __forceinline__ Barrier* empty(int stage) const { return full(kStages + stage); }

  /// One thread.
  __device__ void initialise() const {
    for (int stage = 0; stage < kStages; ++stage) {
      initBarrier(full(stage), 1);
      initBarrier(empty(stage), kMultipliers / 32);
    }
    fenceBarriers();
  }
};

/// A block's part of the product: outputs from `output` on of one matrix, which is at `first` of both together; steps [begin, end) of k.
struct Part {
  bool isQuery;
  int output, first, lane, begin, end;

  template <class W>
  static __device__ __forceinline__ Part ofBlock(const MlaProjectParams& p) {
    const int qRank = static_cast<int>(p.qA.rows), queryTiles = (qRank + kOutputs - 1) / kOutputs, tile = static_cast<int>(blockIdx.x);
    const int steps = static_cast<int>(p.qA.columns) / Step<W>::kNumbers, lane = static_cast<int>(blockIdx.y), lanes = static_cast<int>(gridDim.y);
    const bool isQuery = tile < queryTiles;
    return {isQuery, (isQuery ? tile : tile - queryTiles) * kOutputs, isQuery ? 0 : qRank, lane, laneBegin(steps, lane, lanes), laneBegin(steps, lane + 1, lanes)};
  }
  __device__ __forceinline__ const WeightView& matrix(const MlaProjectParams& p) const { return isQuery ? p.qA : p.kvA; }
};

/// One thread.
template <class W, int kRows>
__device__ __forceinline__ void copySteps(const Memory<W, kRows>& memory, const Part& part, const TensorMap& weightMap, const TensorMap& rowMap) {
  constexpr int kStages = Memory<W, kRows>::kStages;
  const uint64_t weightPolicy = gridDim.z == 1 ? readOncePolicy() : readAgainPolicy(), rowPolicy = readAgainPolicy();
  const auto copyWeights = [&](int step, int stage) {
    arriveExpecting(memory.full(stage), memory.kStageBytes);
    copyBox(memory.weights(stage), &weightMap, memory.full(stage), step * (128 / static_cast<int>(sizeof(W))), part.output, weightPolicy);
  };
  const auto copyRows = [&](int step, int stage) {
#pragma unroll
    for (int box = 0; box < Step<W>::kRowBoxes; ++box)
      copyBox(memory.rows(stage) + box * memory.kRowBoxBytes, &rowMap, memory.full(stage), (step * Step<W>::kRowBoxes + box) * kBoxColumns, blockIdx.z * kRows,
              rowPolicy);
  };
  const int begun = min(part.end - part.begin, kStages);
  for (int i = 0; i < begun; ++i) copyWeights(part.begin + i, i);
  awaitPrevious();
  for (int i = 0; i < begun; ++i) copyRows(part.begin + i, i);
  RingPlace<kStages> place;
  for (int step = part.begin + begun; step < part.end; ++step) {
    wait(memory.empty(place.stage), place.phase);
    copyWeights(step, place.stage);
    copyRows(step, place.stage);
    place.next();
  }
}

/// The warpgroup.
template <class W, int kRows>
__device__ __forceinline__ void multiplySteps(const Memory<W, kRows>& memory, const Part& part, const float* scales, float (&sum)[kRows / 2]) {
  RingPlace<Memory<W, kRows>::kStages> place;
  const auto release = [&](int stage) {
    if ((threadIdx.x & 31) == 0) arrive(memory.empty(stage));
  };
  int before = 0;
  float scale = scales ? scales[part.begin] : 0.0f;
  awaitPrevious();
  holdRegisters(sum);
  for (int step = part.begin; step < part.end; ++step) {
    const float next = scales && step + 1 < part.end ? scales[step + 1] : 0.0f;
    wait(memory.full(place.stage), place.phase);
    Step<W>::template multiply<kRows>(sum, memory.weights(place.stage), memory.rows(place.stage), scale, [&] {
      if (!Step<W>::kReleasesBefore) release(place.stage);
      else if (step > part.begin) release(before);
    });
    scale = next;
    before = place.stage;
    place.next();
  }
  waitProducts<0>();
  holdRegisters(sum);
}

template <int kRows>
__device__ __forceinline__ void storeLane(const MlaProjectParams& p, const Part& part, const float (&sum)[kRows / 2]) {
  const int thread = static_cast<int>(threadIdx.x), left = static_cast<int>(part.matrix(p).rows) - part.output;
  const int firstRow = static_cast<int>(blockIdx.z) * kRows, rows = static_cast<int>(liveRows(p.rows, p.capacity)) - firstRow;
  const int64_t width = p.qA.rows + p.kvA.rows;
  float* lane = p.latentLanes + (part.lane * p.laneRows + firstRow) * width + part.first + part.output;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int output = thread / 32 * 16 + thread % 32 / 4 + 8 * half;
    if (output >= left) continue;
#pragma unroll
    for (int j = 0; j < kRows / 8; ++j) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int row = 8 * j + thread % 4 * 2 + i;
        if (row < rows) lane[row * width + output] = sum[4 * j + 2 * half + i];
      }
    }
  }
}

/// Block (x, y, z): tile x of the outputs of both matrices, lane y of k, rows from kRows · z on.
template <class W, int kRows>
__global__ void __launch_bounds__(kThreads, 2) sumLanes(const __grid_constant__ MlaProjectParams p, const __grid_constant__ TensorMap queryMap,
                                                        const __grid_constant__ TensorMap keyMap, const __grid_constant__ TensorMap rowMap) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(1024) unsigned char shared[];
  letNextBegin();
  if (blockIdx.z > 0) {
    awaitPrevious();
    if (blockIdx.z * kRows >= liveRows(p.rows, p.capacity)) return;
  }
  const Memory<W, kRows> memory{shared};
  const Part part = Part::ofBlock<W>(p);
  if (threadIdx.x == 0) memory.initialise();
  __syncthreads();
  if (threadIdx.x >= kMultipliers) {
    if (threadIdx.x == kMultipliers) copySteps(memory, part, part.isQuery ? queryMap : keyMap, rowMap);
    return;
  }
  const float* scales = part.matrix(p).scale;
  if (scales) scales += part.output / static_cast<int>(kFp8Block) * (p.qA.columns / kFp8Block);
  float sum[kRows / 2] = {};
  multiplySteps(memory, part, scales, sum);
  storeLane<kRows>(p, part, sum);
#endif
}

template <class W, int kRows>
void launchRows(const CudaContext& context, const MlaProjectParams& p, int lanes) {
  const int64_t k = p.qA.columns;
  const auto mapOf = [&](const WeightView& w) { return matrixMap(w.data, sizeof(W), w.rows, k, k * static_cast<int64_t>(sizeof(W)), kOutputs, 128 / sizeof(W), 128); };
  const TensorMap rowMap = matrixMap(p.x.data, 2, p.capacity, k, 2 * k, kRows, kBoxColumns, 128);
  const int64_t steps = ceilDiv(k / Step<W>::kNumbers, lanes), stages = std::min<int64_t>(steps, Memory<W, kRows>::kStages);
  const size_t bytes = static_cast<size_t>(Memory<W, kRows>::kBarrierBytes + stages * Memory<W, kRows>::kStageBytes);
  const dim3 grid(static_cast<unsigned>(ceilDiv(p.qA.rows, kOutputs) + ceilDiv(p.kvA.rows, kOutputs)), static_cast<unsigned>(lanes),
                  static_cast<unsigned>(ceilDiv(p.capacity, kRows)));
  launch(context, sumLanes<W, kRows>, grid, kThreads, bytes, p, mapOf(p.qA), mapOf(p.kvA), rowMap);
}

template <class W>
void launchLanes(const CudaContext& context, const MlaProjectParams& p, int lanes) {
  if (p.capacity <= 8) launchRows<W, 8>(context, p, lanes);
  else if (p.capacity <= 16) launchRows<W, 16>(context, p, lanes);
  else if (p.capacity <= 32) launchRows<W, 32>(context, p, lanes);
  else if (p.capacity <= 64) launchRows<W, 64>(context, p, lanes);
  else launchRows<W, Step<W>::kMostRows>(context, p, lanes);
}

bool isAligned(const void* data) { return reinterpret_cast<uintptr_t>(data) % 16 == 0; }

}  // namespace

bool launchLatentLanes(const CudaContext& context, const MlaProjectParams& p) {
  const int64_t k = p.qA.columns, kvRank = p.kvA.rows - p.rope;
  const bool fp8 = p.qA.dtype == DType::f8e4m3;
  const int lanes = lanesOf(k);
  const bool fits = context.capability == 90 && context.sharedBytes >= kSharedBytes && lanes <= p.mostLanes && p.capacity <= p.laneRows && p.capacity > 0;
  const bool formats = p.activation == DType::bf16 && p.qA.dtype != DType::f32 && p.kvA.dtype == p.qA.dtype && !(fp8 && context.fp8Activations);
  const bool whole = k % (fp8 ? kFp8Block : Step<Bf16>::kNumbers * lanes) == 0 && p.qA.rows % kOctet == 0 && kvRank % kOctet == 0 && p.rope % kOctet == 0;
  if (!fits || !formats || !whole || !isAligned(p.x.data) || !isAligned(p.qA.data) || !isAligned(p.kvA.data)) return false;
  if (fp8) launchLanes<Fp8>(context, p, lanes);
  else launchLanes<Bf16>(context, p, lanes);
  return true;
}

}  // namespace longcat::cuda
