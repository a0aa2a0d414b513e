// Many rows times FP8 weights on Hopper: persistent blocks, in each a warp that copies, three that turn codes into bfloat16, and two warpgroups
// that multiply.
//
// An item is a tile of 128 rows × 128 weight rows (for SwiGLU 64 of either matrix). Blocks of 128 numbers of k pass through three rings in shared
// memory: rows, wgmma's A; codes; and the codes' values, its B. A warpgroup has 64 of the rows. The order of summation is gemm_formats.cuh's: a
// block's products are a chain from zero, scale · chain is added to the lane of k, and a finished lane to the total.
#include "cuda/hopper/gemm_many.cuh"
#include "cuda/hopper/gemm_many.h"

namespace longcat::cuda {
namespace many {
namespace {

constexpr int kConverters = 96;                     // threads: all but the first warp of theirs
constexpr int kFp8Rows = 2 * kUnit, kFp8Columns = 128;
constexpr int kPanelBytes = 128 * kRowBytes;        // 128 rows of 64 bfloat16 numbers, or of 128 codes
constexpr int kInputs = 3, kValues = 2;             // stages of rows and codes; of values
constexpr int kOwnTotals = 48;                      // of a thread's 64 totals those in registers, beside a block's chain and a lane
constexpr int kFp8ProducerRegisters = 72, kFp8MultiplierRegisters = 216;

template <bool kDual_>
struct Fp8Shape {
  static constexpr bool kDual = kDual_;
  static constexpr int kWidth = kFp8Columns, kOutputs = kDual ? kWidth / 2 : kWidth, kOwnOutputs = kOutputs, kBox = kOutputs;
  static constexpr int kPieces = 8, kSpareBytes = 16 * 16 * kPieces;  // as Shape has them
  static_assert(kSpareBytes >= 32 * 4 * (kWidth / 2 - kOwnTotals));
  static int64_t sharedBytes(const GemmProblem& p) {
    return kPanelBytes * (3 * kInputs + 2 * kValues) + 4 * kMultipliers * kSpareBytes + sizeof(TensorMap) + (4 * kInputs + 2 * kValues) * sizeof(Barrier) +
           prefixBytes(p);
  }
};

/// One ring's barriers.
template <int kStages_>
struct Ring {
  static constexpr int kStages = kStages_;
  Barrier *full, *empty;
  __device__ explicit Ring(Barrier* first) : full(first), empty(first + kStages) {}
  __device__ void init(int writers, int readers) const {
    for (int stage = 0; stage < kStages; ++stage) initBarrier(full + stage, writers), initBarrier(empty + stage, readers);
  }
  __device__ __forceinline__ void awaitFull(const RingPlace<kStages>& at) const { wait(full + at.stage, at.phase); }
  __device__ __forceinline__ void awaitEmpty(const RingPlace<kStages>& at) const { wait(empty + at.stage, at.phase ^ 1); }
};

struct Fp8Memory {
  unsigned char *rows, *codes, *values, *spare;
  TensorMap* map;
  Ring<kInputs> rowRing, codeRing;
  Ring<kValues> valueRing;
  int* prefix;

  template <class Shape>
  __device__ Fp8Memory(unsigned char* shared, Shape)
      : rows(shared), codes(rows + kInputs * 2 * kPanelBytes), values(codes + kInputs * kPanelBytes), spare(values + kValues * 2 * kPanelBytes),
        map(reinterpret_cast<TensorMap*>(spare + 4 * kMultipliers * Shape::kSpareBytes)), rowRing(reinterpret_cast<Barrier*>(map + 1)),
        codeRing(rowRing.empty + kInputs), valueRing(codeRing.empty + kInputs), prefix(reinterpret_cast<int*>(valueRing.empty + kValues)) {}
};

/// The rows of an item, gathered by one warp: 16 threads copy 256 bytes of a row.
class Gatherer {
 public:
  __device__ __forceinline__ Gatherer(const GemmProblem& p, const WorkItem& item) : from_(static_cast<const uint4*>(p.x.data)) {
    const int lane = threadIdx.x & 31, last = static_cast<int>(item.rowEnd) - 1;
#pragma unroll
    for (int i = 0; i < kFp8Rows / 32; ++i)
      begin_[i] = static_cast<uint32_t>(p.rowIndex[min(static_cast<int>(item.row) + i * 32 + lane, last)] * (p.xStride / 8));
  }
  __device__ __forceinline__ void copy(unsigned char* to, int block, int rows) const {
    const int lane = threadIdx.x & 31, piece = lane % 8;
    to += lane % 16 / 8 * kPanelBytes;
    const uint4* from = from_ + block * 16 + lane % 16;
#pragma unroll
    for (int i = 0; i < kFp8Rows / 32; ++i) {
#pragma unroll 4
      for (int j = 0; j < 32; j += 2) {
        const int own = j + lane / 16, row = i * 32 + own;
        const uint32_t begin = __shfl_sync(kAllLanes, begin_[i], own);
        if (row < rows) copyAsync16(to + swizzled128(row, piece), from + begin, true);
      }
    }
  }

 private:
  const uint4* from_;
  uint32_t begin_[kFp8Rows / 32];  // of row 32i + lane, in pieces of 16 bytes
};

/// The first warp: codes, and rows.
template <class Shape>
__device__ __forceinline__ void copyFp8(const GemmProblem& p, const TensorMap& weightMap, const TensorMap& weightMap2, const TensorMap& rowMap,
                                        const Work& work, const Fp8Memory& m) {
  const bool leads = (threadIdx.x & 31) == 0;
  const uint64_t policy = usualPolicy();
  const int blocks = static_cast<int>(depthOf(p) / kFp8Block);
  constexpr int kMatrices = Shape::kDual ? 2 : 1;
  const TensorMap* map[2] = {&weightMap, &weightMap2};
  GroupMaps<kMatrices * (kInputs + 1)> maps(weightMap, m.map);
  RingPlace<kInputs> place;
  for (int item = blockIdx.x; item < work.items(); item += gridDim.x) {
    const WorkItem tile = work.at(item);
    const int rows = static_cast<int>(tile.rowEnd - tile.row), output = static_cast<int>(tile.output);
    if (p.groupStart) {
#pragma unroll
      for (int i = 0; i < kMatrices; ++i) map[i] = maps.of(matrixOf(p, tile.group, i == 1).data);
    }
    const auto copyCodes = [&](int block) {
      Barrier* full = m.codeRing.full + place.stage;
      m.codeRing.awaitEmpty(place);
      arriveExpecting(full, kPanelBytes);
#pragma unroll
      for (int i = 0; i < kMatrices; ++i)
        copyBox(m.codes + place.stage * kPanelBytes + i * Shape::kBox * kRowBytes, map[i], full, block * static_cast<int>(kFp8Block), output, policy);
    };
    if (p.rowIndex) {
      const Gatherer gatherer(p, tile);
      for (int block = 0; block < blocks; ++block, place.next()) {
        if (leads) copyCodes(block);
        __syncwarp();
        m.rowRing.awaitEmpty(place);
        gatherer.copy(m.rows + place.stage * 2 * kPanelBytes, block, rows);
        arriveAfterCopies(m.rowRing.full + place.stage);
      }
    } else if (leads) {
      const int units = (rows + kUnit - 1) / kUnit;
      for (int block = 0; block < blocks; ++block, place.next()) {
        copyCodes(block);
        Barrier* full = m.rowRing.full + place.stage;
        m.rowRing.awaitEmpty(place);
        arriveExpecting(full, units * 2 * kUnit * kRowBytes);
        for (int i = 0; i < 2 * units; ++i)
          copyBox(m.rows + (place.stage * 2 + i % 2) * kPanelBytes + i / 2 * kUnit * kRowBytes, &rowMap, full, block * static_cast<int>(kFp8Block) + i % 2 * kDepth,
                  static_cast<int>(tile.row) + i / 2 * kUnit, policy);
      }
    }
    __syncwarp();
  }
}

__device__ __forceinline__ uint4 bf16Octet(uint32_t low, uint32_t high) {
  uint4 octet;
  bf16OfFp8(low, octet.x, octet.y);
  bf16OfFp8(high, octet.z, octet.w);
  return octet;
}

/// The other warps beside it: 128 rows of 128 codes become two panels of 64 bfloat16 numbers a row. A thread takes 16 codes at a time; eight threads,
/// which have a row, write to different banks at once since half of them write their second octets first.
class Converter {
 public:
  __device__ __forceinline__ Converter() {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = first_ + i * kAtOnce;
      from_[i] = swizzled128(row, piece_);
      to_[i] = piece_ / 4 * kPanelBytes + swizzled128(row, piece_ % 4 * 2 + swaps_);
    }
  }
  __device__ __forceinline__ void convert(const unsigned char* codes, unsigned char* values) const {
#pragma unroll
    for (int i = 0; i < (kFp8Columns + kAtOnce - 1) / kAtOnce; ++i) {
      if (first_ + i * kAtOnce >= kFp8Columns) break;
      const int behind = i / 2 * (2 * kAtOnce * kRowBytes);
      const uint4 from = *reinterpret_cast<const uint4*>(codes + from_[i % 2] + behind);
      unsigned char* to = values + behind;
      *reinterpret_cast<uint4*>(to + to_[i % 2]) = bf16Octet(swaps_ ? from.z : from.x, swaps_ ? from.w : from.y);
      *reinterpret_cast<uint4*>(to + (to_[i % 2] ^ 16)) = bf16Octet(swaps_ ? from.x : from.z, swaps_ ? from.y : from.w);
    }
  }

 private:
  static constexpr int kAtOnce = kConverters / 8;
  static_assert(kAtOnce % 4 == 0);  // so that every second of a thread's rows has the same swizzle
  const int first_ = (threadIdx.x - 32) / 8, piece_ = threadIdx.x % 8;
  const bool swaps_ = piece_ >= 4;
  int from_[2], to_[2];
};

__device__ __forceinline__ void convert(int64_t stages, const Fp8Memory& m) {
  const bool leads = (threadIdx.x & 31) == 0;
  const Converter converter;
  RingPlace<kInputs> from;
  RingPlace<kValues> to;
  for (int64_t i = 0; i < stages; ++i, from.next(), to.next()) {
    m.codeRing.awaitFull(from);
    m.valueRing.awaitEmpty(to);
    converter.convert(m.codes + from.stage * kPanelBytes, m.values + to.stage * 2 * kPanelBytes);
    fenceAsyncProxy();
    __syncwarp();
    if (leads) arrive(m.valueRing.full + to.stage), arrive(m.codeRing.empty + from.stage);
  }
}

/// A multiplying warpgroup's places in the rings.
struct Fp8Consumer {
  const Fp8Memory& m;
  const bool gathered;
  RingPlace<kInputs> rows = {};
  RingPlace<kValues> values = {};

  __device__ __forceinline__ void await() const {
    m.rowRing.awaitFull(rows);
    m.valueRing.awaitFull(values);
    if (gathered) fenceAsyncProxy();
  }
  /// Both have been read.
  __device__ __forceinline__ void pass() {
    if ((threadIdx.x & 31) == 0) arrive(m.rowRing.empty + rows.stage), arrive(m.valueRing.empty + values.stage);
    rows.next(), values.next();
  }
};

/// part = a block's chain of products.
__device__ __forceinline__ void multiplyBlock(float (&part)[kFp8Columns / 2], const unsigned char* rows, const unsigned char* values) {
  const uint64_t a = rowsOfK(rows), b = rowsOfK(values);
  beginProducts();
#pragma unroll
  for (int i = 0; i < 8; ++i) productBf16<kFp8Columns>(part, a + i / 4 * (kPanelBytes / 16) + i % 4 * 2, b + i / 4 * (kPanelBytes / 16) + i % 4 * 2, i > 0);
  endProducts();
  waitProducts<0>();
  holdRegisters(part);
}

template <class Shape>
__device__ __forceinline__ void multiplyFp8(const GemmProblem& p, const Work& work, const Fp8Memory& m) {
  constexpr int kSums = Shape::kWidth / 2;
  const int warpgroup = threadIdx.x / 128 - 1, warp = threadIdx.x >> 5 & 3, first = warpgroup * kUnit + 16 * warp;
  const int64_t k = depthOf(p);
  const int blocks = static_cast<int>(k / kFp8Block), lanes = lanesOf(k);
  unsigned char* spare = m.spare + (4 * warpgroup + warp) * Shape::kSpareBytes;
  Fp8Consumer ring{m, p.rowIndex != nullptr};
  for (int item = blockIdx.x; item < work.items(); item += gridDim.x) {
    const WorkItem tile = work.at(item);
    const int rows = static_cast<int>(tile.rowEnd - tile.row);
    if (rows <= warpgroup * kUnit) {
      for (int block = 0; block < blocks; ++block) ring.await(), ring.pass();
      continue;
    }
    const int64_t scaleRow = tile.output / kFp8Block * blocks;
    const float* scale = matrixOf(p, tile.group, false).scale + scaleRow;
    const float* scale2 = Shape::kDual ? matrixOf(p, tile.group, true).scale + scaleRow : scale;
    float part[kSums], sum[kSums];
    Total<kSums, kOwnTotals> total(spare);
    for (int lane = 0; lane < lanes; ++lane) {
#pragma unroll
      for (int i = 0; i < kSums; ++i) sum[i] = 0;
      const int end = laneBegin(blocks, lane + 1, lanes);
      for (int block = laneBegin(blocks, lane, lanes); block < end; ++block) {
        const float by[2] = {scale[block], scale2[block]};
        ring.await();
        multiplyBlock(part, m.rows + ring.rows.stage * 2 * kPanelBytes + warpgroup * kUnit * kRowBytes, m.values + ring.values.stage * 2 * kPanelBytes);
        ring.pass();
#pragma unroll
        for (int i = 0; i < kSums; ++i) sum[i] = fmaf(by[i / (kSums / 2)], part[i], sum[i]);
      }
      if (lane + 1 < lanes) total.add(sum, lane == 0);
      else if (lane > 0) total.finish(sum);
    }
    storeTile<Shape>(p, sum, static_cast<int>(tile.row) + first, rows - first, static_cast<int>(tile.output), spare);
  }
}

template <class Shape>
__global__ void __launch_bounds__(kThreads, 1) gemmManyFp8(const __grid_constant__ GemmProblem p, const __grid_constant__ TensorMap weightMap,
                                                           const __grid_constant__ TensorMap weightMap2, const __grid_constant__ TensorMap rowMap) {
  awaitPrevious();
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(1024) unsigned char shared[];
  const Fp8Memory m(shared, Shape{});
  if (threadIdx.x == 0) {
    prefetchMap(&rowMap);
    m.rowRing.init(p.rowIndex ? 32 : 1, kMultipliers * 4);
    m.codeRing.init(1, kConverters / 32);
    m.valueRing.init(kConverters / 32, kMultipliers * 4);
    fenceBarriers();
  }
  const Work work(p, kFp8Rows, Shape::kOutputs, m.prefix);
  __syncthreads();
  if (threadIdx.x < 128) {
    fewerRegisters<kFp8ProducerRegisters>();
    if (threadIdx.x < 32) {
      copyFp8<Shape>(p, weightMap, weightMap2, rowMap, work, m);
    } else {
      const int left = work.items() - static_cast<int>(blockIdx.x), blocks = static_cast<int>(gridDim.x);
      convert(left > 0 ? (left + blocks - 1) / blocks * (depthOf(p) / kFp8Block) : 0, m);
    }
  } else {
    moreRegisters<kFp8MultiplierRegisters>();
    multiplyFp8<Shape>(p, work, m);
  }
#endif
}

template <bool kDual>
bool launchManyFp8(const CudaContext& context, const GemmProblem& p) {
  using Shape = Fp8Shape<kDual>;
  const int64_t k = depthOf(p), outputs = outputsOf(p), sharedBytes = Shape::sharedBytes(p);
  if (sharedBytes > context.sharedBytes || context.multiprocessors > kMostMultiprocessors) return false;
  const auto weightMap = [&](const void* data) { return matrixMap(data, 1, outputs, k, k, Shape::kBox, kFp8Block, kRowBytes); };
  const TensorMap first = weightMap(p.groupStart ? p.x.data : p.weight.data);  // of a group's matrices all but the address
  const TensorMap second = kDual && !p.groupStart ? weightMap(p.weight2.data) : first;
  const TensorMap rowMap = matrixMap(p.x.data, 2, p.capacity, k, 2 * p.xStride, kUnit, kDepth, kRowBytes);
  const int grid = persistentGrid(context, mostItems(p, kFp8Rows, Shape::kOutputs));
  launch(context, gemmManyFp8<Shape>, dim3(static_cast<unsigned>(grid)), kThreads, static_cast<size_t>(sharedBytes), p, first, second, rowMap);
  return true;
}

}  // namespace
}  // namespace many

bool manyFp8(const CudaContext& context, const GemmProblem& p) {
  return p.epilogue == Epilogue::swiglu ? many::launchManyFp8<true>(context, p) : many::launchManyFp8<false>(context, p);
}

}  // namespace longcat::cuda
