// Many quantised rows times FP8 weights on Hopper: tensor cores multiply the codes themselves.
//
// A small launch ahead turns rows to codes and scales in the order in which the product wants them, so that the copy engine fetches all there is. The
// product's clusters of two blocks take items of 128 rows × 256 weight rows (for SwiGLU 128 of either matrix): a block has half of the weight
// rows, wgmma's B, and all of the rows, its A, of which either block fetches half and sends it to both. A stage is a block of 128 numbers of k. The order of
// summation is gemm_formats.cuh's: a stage's products are a chain from zero, scale · chain is added to the lane of k, and a finished lane to the
// total; all three are registers of the two warpgroups that multiply, 64 rows each.
#include "cuda/hopper/gemm_many.cuh"
#include "cuda/hopper/gemm_many.h"
#include "cuda/hopper/quantise.cuh"

namespace longcat::cuda {
namespace many {
namespace {

// ---- rows to codes -----------------------------------------------------------------------------------------------------------

constexpr int kQuantisers = 128, kMostPieces = 8;
constexpr int64_t kPiece = 16 * kQuantisers;  // numbers of a row that a block has in registers once

__device__ __forceinline__ int liveRowsOf(const GemmProblem& p) {
  if (p.groupStart) return p.groupStart[p.groups];
  return static_cast<int>(p.liveRows ? clampCount(*p.liveRows, p.capacity) : p.capacity);
}

/// A block takes one row after another. It has all of a row's numbers before it writes, for codes may lie where those were.
template <int kPieces>
__global__ void __launch_bounds__(kQuantisers) quantiseRows(const __grid_constant__ GemmProblem p) {
  awaitPrevious();
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  const int rows = liveRowsOf(p), k = static_cast<int>(depthOf(p)), sixteens = k / 16;
  for (int row = blockIdx.x; row < rows; row += gridDim.x) {
    const uint4* from = reinterpret_cast<const uint4*>(static_cast<const Bf16*>(p.x.data) + sourceRow(p, row) * p.xStride);
    uint4 numbers[kPieces][2] = {};
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      const int c = i * kQuantisers + threadIdx.x;
      if (c < sixteens) numbers[i][0] = from[2 * c], numbers[i][1] = from[2 * c + 1];
    }
    uint4 codes[kPieces];
    float scale[kPieces];
#pragma unroll
    for (int i = 0; i < kPieces; ++i) codes[i] = e4m3Sixteen(numbers[i], scale[i]);
    __syncthreads();
    unsigned char* to = p.codes + row * p.codesStride;
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      const int c = i * kQuantisers + threadIdx.x;
      if (c >= sixteens) continue;
      reinterpret_cast<uint4*>(to)[c] = codes[i];
      if (c % 8 == 0) reinterpret_cast<float*>(to + k)[c / 8] = scale[i];
    }
  }
#endif
}

void launchQuantise(const CudaContext& context, const GemmProblem& p) {
  const int64_t pieces = ceilDiv(depthOf(p), kPiece);
  const auto kernel = pieces <= 1 ? quantiseRows<1> : pieces <= 3 ? quantiseRows<3> : pieces <= 4 ? quantiseRows<4> : pieces <= 6 ? quantiseRows<6> : quantiseRows<kMostPieces>;
  launch(context, kernel, dim3(static_cast<unsigned>(persistentGrid(context, p.capacity, 12))), kQuantisers, 0, p);
}

// ---- the product ---------------------------------------------------------------------------------------------------------------

/// As Shape, whose helpers it is for. Behind a stage's weights are its rows' scales.
template <bool kDual_>
struct CodesShape {
  static constexpr bool kDual = kDual_;
  static constexpr int kRows = 2 * kUnit, kWidth = 128, kColumns = kWidth;  // of a block
  static constexpr int kOwnOutputs = kDual ? kWidth / 2 : kWidth, kOutputs = kCluster * kOwnOutputs, kBox = kOwnOutputs;
  static constexpr int kRowsBytes = kRows * kRowBytes, kWeightsBytes = kColumns * kRowBytes, kStageBytes = kRowsBytes + kWeightsBytes + 1024;
  static constexpr int kPieces = 8, kSpareBytes = 16 * 16 * kPieces, kStages = 6;
  static int64_t sharedBytes(const GemmProblem& p) {
    return kStages * (kStageBytes + sizeof(int4) + 2 * sizeof(Barrier)) + 4 * kMultipliers * kSpareBytes + sizeof(TensorMap) + prefixBytes(p);
  }
};

constexpr int kScalers = 64;  // threads that bring rows' scales, two rows each
constexpr int kHalfUnit = kUnit / kCluster;

template <class Shape>
__device__ __forceinline__ float* scalesOf(const Memory<Shape>& m, int stage) {
  return reinterpret_cast<float*>(m.weights(stage) + Shape::kWeightsBytes);
}

/// The first warp: weights of this block, and half of each unit of rows for both.
template <class Shape>
__device__ __forceinline__ void copyCodes(const GemmProblem& p, const TensorMap& weightMap, const TensorMap& weightMap2, const TensorMap& rowMap, const Work& work,
                                          const Memory<Shape>& m) {
  constexpr int kMatrices = Shape::kDual ? 2 : 1;
  const int rank = static_cast<int>(clusterRank()), blocks = static_cast<int>(depthOf(p) / kFp8Block);
  const bool leads = (threadIdx.x & 31) == 0;
  const uint64_t policy = usualPolicy();
  const TensorMap* map[2] = {&weightMap, &weightMap2};
  GroupMaps<kMatrices * (Shape::kStages + 1)> maps(weightMap, m.map);
  RingPlace<Shape::kStages> place;
  for (int item = blockIdx.x / kCluster; item < work.items(); item += gridDim.x / kCluster) {
    const WorkItem tile = work.at(item);
    const int rows = static_cast<int>(tile.rowEnd - tile.row), units = (rows + kUnit - 1) / kUnit, row = static_cast<int>(tile.row) + rank * kHalfUnit;
    const int output = static_cast<int>(tile.output) + rank * Shape::kOwnOutputs;
    if (p.groupStart) {
#pragma unroll
      for (int i = 0; i < kMatrices; ++i) map[i] = maps.of(matrixOf(p, tile.group, i == 1).data);
    }
    if (leads) {
      for (int block = 0; block < blocks; ++block, place.next()) {
        Barrier* full = m.full + place.stage;
        wait(m.empty + place.stage, place.phase ^ 1);
        if (block == 0) m.tiles[place.stage] = make_int4(static_cast<int>(tile.row), rows, output, tile.group);
        arriveExpecting(full, Shape::kWeightsBytes + units * kUnit * kRowBytes);
        const int k = block * static_cast<int>(kFp8Block);
#pragma unroll
        for (int i = 0; i < kMatrices; ++i) copyBox(m.weights(place.stage) + i * Shape::kBox * kRowBytes, map[i], full, k, output, policy);
        for (int unit = 0; unit < units; ++unit)
          copyBoxToAll(m.rows(place.stage) + (unit * kUnit + rank * kHalfUnit) * kRowBytes, &rowMap, full, k, row + unit * kUnit, (1 << kCluster) - 1, policy);
      }
    }
    __syncwarp();
  }
}

/// The next two: the rows' scales, of four blocks at a time.
template <class Shape>
__device__ __forceinline__ void copyScales(const GemmProblem& p, const Work& work, const Memory<Shape>& m) {
  constexpr int kOwn = Shape::kRows / kScalers, kAtOnce = 4;
  const int own = threadIdx.x % kScalers, blocks = static_cast<int>(depthOf(p) / kFp8Block);
  const bool leads = (threadIdx.x & 31) == 0;
  RingPlace<Shape::kStages> place;
  for (int item = blockIdx.x / kCluster; item < work.items(); item += gridDim.x / kCluster) {
    const WorkItem tile = work.at(item);
    const float4* from[kOwn];
#pragma unroll
    for (int i = 0; i < kOwn; ++i)
      from[i] = reinterpret_cast<const float4*>(p.codes + min(static_cast<int>(tile.row) + own + i * kScalers, static_cast<int>(tile.rowEnd) - 1) * p.codesStride + depthOf(p));
    for (int first = 0; first < blocks; first += kAtOnce) {
      float4 scales[kOwn];
#pragma unroll
      for (int i = 0; i < kOwn; ++i) scales[i] = from[i][first / kAtOnce];
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j) {
        if (first + j >= blocks) break;
        wait(m.empty + place.stage, place.phase ^ 1);
#pragma unroll
        for (int i = 0; i < kOwn; ++i) {
          const float4& s = scales[i];
          scalesOf(m, place.stage)[own + i * kScalers] = j == 0 ? s.x : j == 1 ? s.y : j == 2 ? s.z : s.w;
        }
        __syncwarp();
        if (leads) arrive(m.full + place.stage);
        place.next();
      }
    }
  }
}

/// A thread's sums. A warpgroup's warp has 16 rows, of which a thread has two; sums 4j and 4j + 1 are the first one's, 4j + 2 and 4j + 3 the second one's.
template <class Shape>
__device__ __forceinline__ void multiplyCodes(const GemmProblem& p, Consumer<Shape>& ring, const int4& tile, int warpgroup) {
  constexpr int kSums = Shape::kWidth / 2;
  const int blocks = static_cast<int>(depthOf(p) / kFp8Block), lanes = lanesOf(depthOf(p)), warp = threadIdx.x >> 5 & 3, first = warpgroup * kUnit + 16 * warp;
  if (tile.y <= warpgroup * kUnit) return ring.skip(blocks);
  const int64_t scaleRow = min(tile.z, static_cast<int>(outputsOf(p)) - 1) / kFp8Block * blocks;
  const float* scale = matrixOf(p, tile.w, false).scale + scaleRow;
  const float* scale2 = Shape::kDual ? matrixOf(p, tile.w, true).scale + scaleRow : scale;
  unsigned char* spare = ring.m.spare + (4 * warpgroup + warp) * Shape::kSpareBytes;
  const int scaleAt = first + (threadIdx.x >> 2 & 7);
  float part[kSums], sum[kSums];
  Total<kSums> total(spare);
  for (int lane = 0; lane < lanes; ++lane) {
#pragma unroll
    for (int i = 0; i < kSums; ++i) sum[i] = 0;
    const int end = laneBegin(blocks, lane + 1, lanes);
    for (int block = laneBegin(blocks, lane, lanes); block < end; ++block) {
      const float of = scale[block], of2 = scale2[block];
      ring.await();
      const int stage = ring.place.stage;
      const float* rowScale = scalesOf(ring.m, stage) + scaleAt;
      const float upper = rowScale[0], lower = rowScale[8];
      const uint64_t a = rowsOfK(ring.m.rows(stage) + warpgroup * kUnit * kRowBytes), b = rowsOfK(ring.m.weights(stage));
      beginProducts();
#pragma unroll
      for (int i = 0; i < 4; ++i) productE4m3<Shape::kWidth>(part, furtherOn(a, 32 * i), furtherOn(b, 32 * i), i > 0);
      endProducts();
      const float by[2][2] = {{__fmul_rn(of, upper), __fmul_rn(of, lower)}, {__fmul_rn(of2, upper), __fmul_rn(of2, lower)}};
      waitProducts<0>();
      holdRegisters(part);
      ring.pass();
#pragma unroll
      for (int i = 0; i < kSums; ++i) sum[i] = fmaf(by[i / (kSums / 2)][i / 2 % 2], part[i], sum[i]);
    }
    if (lane + 1 < lanes) total.add(sum, lane == 0);
    else if (lane > 0) total.finish(sum);
  }
  storeTile<Shape>(p, sum, tile.x + first, tile.y - first, tile.z, spare);
}

template <class Shape>
__global__ void __launch_bounds__(kThreads, 1) gemmManyCodes(const __grid_constant__ GemmProblem p, const __grid_constant__ TensorMap weightMap,
                                                             const __grid_constant__ TensorMap weightMap2, const __grid_constant__ TensorMap rowMap) {
  awaitPrevious();
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(1024) unsigned char shared[];
  const Memory<Shape> m(shared);
  if (threadIdx.x == 0) {
    prefetchMap(&rowMap);
    for (int stage = 0; stage < Shape::kStages; ++stage) {
      initBarrier(m.full + stage, 1 + kScalers / 32);
      initBarrier(m.empty + stage, kCluster * kMultipliers * 4);
    }
    fenceBarriers();
  }
  const Work work(p, Shape::kRows, Shape::kOutputs, m.prefix);
  syncCluster();
  if (threadIdx.x < 128) {
    fewerRegisters<kProducerRegisters>();
    if (threadIdx.x < 32) copyCodes(p, weightMap, weightMap2, rowMap, work, m);
    else if (threadIdx.x < 32 + kScalers) copyScales(p, work, m);
  } else {
    moreRegisters<kMultiplierRegisters>();
    const int items = work.items();
    Consumer<Shape> ring(m, false);
    for (int item = blockIdx.x / kCluster; item < items; item += gridDim.x / kCluster) {
      ring.await();
      const int4 tile = m.tiles[ring.place.stage];
      multiplyCodes(p, ring, tile, threadIdx.x / 128 - 1);
    }
  }
  syncCluster();  // the other block may still send rows here, or say that it has read its own
#endif
}

template <bool kDual>
bool launchManyCodes(const CudaContext& context, const GemmProblem& p) {
  using Shape = CodesShape<kDual>;
  const int64_t k = depthOf(p), outputs = outputsOf(p), sharedBytes = Shape::sharedBytes(p);
  if (sharedBytes > context.sharedBytes || context.multiprocessors > kMostMultiprocessors || k > kPiece * kMostPieces) return false;
  launchQuantise(context, p);
  const auto weightMap = [&](const void* data) { return matrixMap(data, 1, outputs, k, k, Shape::kBox, kFp8Block, kRowBytes); };
  const TensorMap first = weightMap(p.groupStart ? p.codes : p.weight.data);  // of a group's matrices all but the address
  const TensorMap second = kDual && !p.groupStart ? weightMap(p.weight2.data) : first;
  const TensorMap rowMap = matrixMap(p.codes, 1, p.capacity, k, p.codesStride, kHalfUnit, kFp8Block, kRowBytes);
  const int64_t clusters = std::min<int64_t>(mostItems(p, Shape::kRows, Shape::kOutputs), context.multiprocessors / kCluster);
  const LaunchShape shape{dim3(static_cast<unsigned>(kCluster * clusters)), kThreads, static_cast<size_t>(sharedBytes), kCluster};
  launch(context, gemmManyCodes<Shape>, shape, p, first, second, rowMap);
  return true;
}

}  // namespace
}  // namespace many

bool manyFp8Quantised(const CudaContext& context, const GemmProblem& p) {
  const int64_t k = depthOf(p), scaleBytes = ceilDiv(k, 4 * kFp8Block) * 16;  // they are read four at a time
  if (!p.codes || p.codesStride < k + scaleBytes || p.codesStride % 16 != 0 || reinterpret_cast<uintptr_t>(p.codes) % 16 != 0) return false;
  return p.epilogue == Epilogue::swiglu ? many::launchManyCodes<true>(context, p) : many::launchManyCodes<false>(context, p);
}

}  // namespace longcat::cuda
