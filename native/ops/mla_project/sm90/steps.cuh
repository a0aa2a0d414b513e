// What the products of few rows on Hopper share, whose blocks have one lane of k of 64 outputs each: a copy warp, a ring in shared memory, and a
// warpgroup that multiplies. For few rows the ring is the whole lane, all asked for before anything waits, the weights even before the rows
// are there.
//
// Weights are wgmma's A, 64 outputs, rows its B. The order of a lane's sum is that of all products on this card (docs/kernels.md): bfloat16: a
// chain of sixteen numbers after the other; FP8: block of 128 by block of 128, scale times a chain of eight products.
#pragma once

#include "cuda/dependent.cuh"
#include "cuda/gemm_formats.cuh"
#include "cuda/hopper/copy.cuh"
#include "cuda/hopper/tensor_map.h"
#include "cuda/hopper/wgmma.cuh"
#include "cuda/launch.cuh"
#include "ops/weight.h"

namespace longcat::cuda::steps {

constexpr int kOutputs = 64, kMultipliers = 128, kThreads = kMultipliers + 32;
constexpr int kBoxColumns = 64;            // of a box of rows: 128 bytes
constexpr int kSharedBytes = 113 << 10;    // of a block, so that a multiprocessor has two
constexpr int kMostStages = 12;

/// A step, 128 bytes of each output's weights: kNumbers of k, whose rows are kRowBoxes boxes.
template <class W>
struct Step;
template <>
struct Step<Bf16> {
  static constexpr int kNumbers = 64, kRowBoxes = 1;
};
template <>
struct Step<Fp8> {
  static constexpr int kNumbers = kFp8Block, kRowBoxes = 2;
};

/// Shared memory of a block: its barriers, what else it needs (kMoreBytes), then a ring of steps.
template <class W, int kRows, int kMoreBytes = 0>
struct Memory {
  static constexpr int kWeightBytes = kOutputs * 128, kRowBoxBytes = kRows * 128, kStageBytes = kWeightBytes + Step<W>::kRowBoxes * kRowBoxBytes;
  static constexpr int kRing = 1024 + kMoreBytes, kFit = (kSharedBytes - kRing) / kStageBytes, kStages = kFit < kMostStages ? kFit : kMostStages;
  static_assert(kStages >= 2 && kStageBytes % 1024 == 0 && kRing % 1024 == 0);

  unsigned char* base;
  __device__ __forceinline__ unsigned char* more() const { return base + 1024; }
  __device__ __forceinline__ unsigned char* weights(int stage) const { return base + kRing + stage * kStageBytes; }
  __device__ __forceinline__ unsigned char* rows(int stage) const { return weights(stage) + kWeightBytes; }
  __device__ __forceinline__ Barrier* full(int stage) const { return reinterpret_cast<Barrier*>(base) + stage; }
  __device__ __forceinline__ Barrier* spare() const { return full(2 * kStages); }  // for the kernel itself
  __device__ __forceinline__ Barrier* empty(int stage) const { return full(kStages + stage); }

  /// One thread.
  __device__ void initialise() const {
    for (int stage = 0; stage < kStages; ++stage) {
      initBarrier(full(stage), 1);
      initBarrier(empty(stage), kMultipliers / 32);
    }
    fenceBarriers();
  }

  /// A warp of the warpgroup has read all of the stage: its products are over, and lanes that loaded from it have met. Whole warps.
  __device__ __forceinline__ void release(int stage) const {
    if ((threadIdx.x & 31) == 0) arrive(empty(stage));
  }

  /// Bytes of a block whose lane is so many steps.
  static size_t bytesOf(int64_t steps) { return static_cast<size_t>(kRing + std::min<int64_t>(steps, kStages) * kStageBytes); }
};

/// A block's part of a product: the matrix's outputs from `output` on, steps [begin, end) of k, rows from firstRow on.
struct Part {
  int output, begin, end, firstRow;

  /// Lane `lane` of `lanes` of k.
  template <class W>
  static __device__ __forceinline__ Part ofLane(int output, int64_t k, int lane, int lanes, int firstRow) {
    const int steps = static_cast<int>(k) / Step<W>::kNumbers;
    return {output, laneBegin(steps, lane, lanes), laneBegin(steps, lane + 1, lanes), firstRow};
  }
  /// The scales of its outputs' weights, one for each step; null: none.
  __device__ __forceinline__ const float* scales(const WeightView& w) const {
    return w.scale ? w.scale + output / static_cast<int>(kFp8Block) * (w.columns / kFp8Block) : nullptr;
  }
};

/// Copies all steps, the rows after awaitPrevious(). One thread.
template <class W, int kRows, int kMoreBytes>
__device__ __forceinline__ void copySteps(const Memory<W, kRows, kMoreBytes>& memory, const Part& part, uint64_t weightPolicy, const TensorMap& weightMap, const TensorMap& rowMap) {
  constexpr int kStages = Memory<W, kRows, kMoreBytes>::kStages;
  const uint64_t rowPolicy = readAgainPolicy();
  const auto copyWeights = [&](int step, int stage) {
    arriveExpecting(memory.full(stage), memory.kStageBytes);
    copyBox(memory.weights(stage), &weightMap, memory.full(stage), step * (128 / static_cast<int>(sizeof(W))), part.output, weightPolicy);
  };
  const auto copyRows = [&](int step, int stage) {
#pragma unroll
    for (int box = 0; box < Step<W>::kRowBoxes; ++box)
      copyBox(memory.rows(stage) + box * memory.kRowBoxBytes, &rowMap, memory.full(stage), (step * Step<W>::kRowBoxes + box) * kBoxColumns, part.firstRow,
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

/// A thread's sums of the lane, from zero. The warpgroup.
template <int kRows, int kMoreBytes>
__device__ __forceinline__ void multiplySteps(const Memory<Bf16, kRows, kMoreBytes>& memory, const Part& part, const float*, float (&sum)[kRows / 2]) {
  RingPlace<Memory<Bf16, kRows, kMoreBytes>::kStages> place;
  int before = 0;
  awaitPrevious();
  holdRegisters(sum);
  for (int step = part.begin; step < part.end; ++step) {
    wait(memory.full(place.stage), place.phase);
    beginProducts();
#pragma unroll
    for (int c = 0; c < Step<Bf16>::kNumbers / 16; ++c)
      productBf16<kRows>(sum, furtherOn(rowsOfK(memory.weights(place.stage)), 32 * c), furtherOn(rowsOfK(memory.rows(place.stage)), 32 * c));
    endProducts();
    waitProducts<1>();
    if (step > part.begin) memory.release(before);
    before = place.stage;
    place.next();
  }
  waitProducts<0>();
  holdRegisters(sum);
}

/// Half a step of FP8: codes become bfloat16 on their way to registers. What ldmatrix hands thread q of a quad are codes 4q … 4q + 3 of sixteen,
/// which wgmma takes for numbers 2q, 2q + 1, 2q + 8 and 2q + 9: the rows' numbers are put in that order first.
struct Fp8Half {
  uint32_t a[4][4];

  __device__ __forceinline__ void load(const unsigned char* weights, int half) {
    const int lane = static_cast<int>(threadIdx.x) & 31, place = swizzled128(static_cast<int>(threadIdx.x) / 32 * 16 + (lane & 15), lane >> 4);
#pragma unroll
    for (int x = 0; x < 2; ++x) {
      uint32_t codes[4];  // of outputs g and g + 8: sixteen numbers of k, and the next sixteen
      loadMatrix4(codes, weights + (place ^ ((2 * half + x) << 5)));
      bf16OfFp8(codes[0], a[2 * x][0], a[2 * x][2]);
      bf16OfFp8(codes[1], a[2 * x][1], a[2 * x][3]);
      bf16OfFp8(codes[2], a[2 * x + 1][0], a[2 * x + 1][2]);
      bf16OfFp8(codes[3], a[2 * x + 1][1], a[2 * x + 1][3]);
    }
  }
  /// With the half's box of rows. `add` false: part from zero.
  template <int kRows>
  __device__ __forceinline__ void begin(float (&part)[kRows / 2], const unsigned char* rows, bool add) const {
    beginProducts();
#pragma unroll
    for (int c = 0; c < 4; ++c) productBf16<kRows>(part, a[c], furtherOn(rowsOfK(rows), 32 * c), add || c > 0);
    endProducts();
  }
};

/// A step's rows in the order of the codes. The warpgroup; then a barrier of it.
template <int kRows>
__device__ __forceinline__ void reorderRows(unsigned char* rows) {
  for (int i = threadIdx.x; i < kRows * kFp8Block / 16; i += kMultipliers) {
    const int row = i / 4, piece = i % 4 * 2;  // rows of the second box follow those of the first
    uint4 *low = reinterpret_cast<uint4*>(rows + swizzled128(row, piece)), *high = reinterpret_cast<uint4*>(rows + swizzled128(row, piece + 1));
    const uint4 a = *low, b = *high;
    *low = {a.x, a.z, b.x, b.z};
    *high = {a.y, a.w, b.y, b.w};
  }
  fenceAsyncProxy();
}

/// While the tensor cores have one half of a step, the other, or the next step's rows and first half, are made ready.
template <int kRows, int kMoreBytes>
__device__ __forceinline__ void multiplySteps(const Memory<Fp8, kRows, kMoreBytes>& memory, const Part& part, const float* scales, float (&sum)[kRows / 2]) {
  RingPlace<Memory<Fp8, kRows, kMoreBytes>::kStages> place;
  Fp8Half first, second;
  float scale = scales[part.begin];
  awaitPrevious();
  wait(memory.full(0), 0);
  reorderRows<kRows>(memory.rows(0));
  first.load(memory.weights(0), 0);
#pragma unroll 1
  for (int step = part.begin; step < part.end; ++step) {
    const int stage = place.stage;
    const bool more = step + 1 < part.end;
    const float nextScale = more ? scales[step + 1] : 0.0f;
    float products[kRows / 2];
    syncSome(1, kMultipliers);
    first.begin<kRows>(products, memory.rows(stage), false);
    second.load(memory.weights(stage), 1);
    second.begin<kRows>(products, memory.rows(stage) + memory.kRowBoxBytes, true);
    place.next();
    if (more) {
      wait(memory.full(place.stage), place.phase);
      reorderRows<kRows>(memory.rows(place.stage));
      waitProducts<1>();
      holdRegisters(first.a);
      first.load(memory.weights(place.stage), 0);
    }
    waitProducts<0>();
    __syncwarp();  // all lanes' loads
    memory.release(stage);
    holdRegisters(products);
    holdRegisters(second.a);
#pragma unroll
    for (int i = 0; i < kRows / 2; ++i) sum[i] = fmaf(scale, products[i], sum[i]);
    scale = nextScale;
  }
}

/// The map of a matrix's weights in steps.
template <class W>
TensorMap weightMapOf(const WeightView& w) {
  return matrixMap(w.data, sizeof(W), w.rows, w.columns, w.columns * static_cast<int64_t>(sizeof(W)), kOutputs, 128 / sizeof(W), 128);
}
/// Of bfloat16 rows of k numbers, kRows at a time.
inline TensorMap rowMapOf(const void* rows, int64_t count, int64_t k, int kRows) { return matrixMap(rows, 2, count, k, 2 * k, kRows, kBoxColumns, 128); }

inline bool isAligned(const void* data) { return reinterpret_cast<uintptr_t>(data) % 16 == 0; }

/// Whether such a product has the order of sums that it has elsewhere, and the copy engine can read it: bfloat16 rows, weights of either dtype.
inline bool takesSteps(const CudaContext& context, const void* rows, DType activation, const WeightView& w) {
  if (context.capability != 90 || context.sharedBytes < kSharedBytes || activation != DType::bf16 || !isAligned(rows) || !isAligned(w.data)) return false;
  if (w.dtype == DType::f8e4m3) return !context.fp8Activations && w.columns % kFp8Block == 0;
  return w.dtype == DType::bf16 && w.columns % (Step<Bf16>::kNumbers * lanesOf(w.columns)) == 0;
}

}  // namespace longcat::cuda::steps
