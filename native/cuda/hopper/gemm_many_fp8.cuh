// Many rows times FP8 weights on Hopper: what products of bf16 rows and of quantised rows share.
//
// A small launch ahead writes the rows as the tensor cores want them, in the order in which the product has them, so that the copy engine fetches all there
// is. The product's clusters of two blocks take items of 128 rows × 256 weight rows (for SwiGLU 128 of either matrix) in turn: a block has half of the
// weight rows and all of the rows, of which either block fetches half and sends it to both. A stage is a block of 128 numbers of k. One warp copies, two
// warpgroups multiply. The order of summation is gemm_formats.cuh's: a stage's products are a chain from zero, scale · chain is added to the lane of
// k, and a finished lane to the total.
//
// A Form says how: what the launch ahead makes of sixteen numbers (Sixteen, prepare, store, rowBytes), how a stage is cut (kPanels of 64 or 128 numbers of
// 128 rows, kStages), and how a warpgroup multiplies an item. It has what Memory and Consumer ask of a Shape.
#pragma once

#include "cuda/hopper/gemm_many.cuh"

namespace longcat::cuda::many {

// ---- rows ahead --------------------------------------------------------------------------------------------------------------

constexpr int kPreparers = 128, kMostPieces = 8;
constexpr int64_t kPiece = 16 * kPreparers;  // numbers of a row that a block has in registers once

__device__ __forceinline__ int liveRowsOf(const GemmProblem& p) {
  if (p.groupStart) return p.groupStart[p.groups];
  return static_cast<int>(p.liveRows ? clampCount(*p.liveRows, p.capacity) : p.capacity);
}

/// A block takes one row after another. It has all of a row's numbers before it writes, for it may write where those were.
template <class Form, int kPieces>
__global__ void __launch_bounds__(kPreparers) prepareRows(const __grid_constant__ GemmProblem p) {
  awaitPrevious();
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  const int rows = liveRowsOf(p), k = static_cast<int>(depthOf(p)), sixteens = k / 16;
  for (int row = blockIdx.x; row < rows; row += gridDim.x) {
    const uint4* from = reinterpret_cast<const uint4*>(static_cast<const Bf16*>(p.x.data) + sourceRow(p, row) * p.xStride);
    uint4 numbers[kPieces][2] = {};
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      const int c = i * kPreparers + threadIdx.x;
      if (c < sixteens) numbers[i][0] = from[2 * c], numbers[i][1] = from[2 * c + 1];
    }
    typename Form::Sixteen prepared[kPieces];
#pragma unroll
    for (int i = 0; i < kPieces; ++i) prepared[i] = Form::prepare(numbers[i]);
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      const int c = i * kPreparers + threadIdx.x;
      if (c < sixteens) Form::store(prepared[i], p.ahead + row * p.aheadStride, c, k);
    }
  }
#endif
}

template <class Form>
void launchPrepare(const CudaContext& context, const GemmProblem& p) {
  const int64_t pieces = ceilDiv(depthOf(p), kPiece);
  const auto kernel = pieces <= 1   ? prepareRows<Form, 1>
                      : pieces <= 3 ? prepareRows<Form, 3>
                      : pieces <= 4 ? prepareRows<Form, 4>
                      : pieces <= 6 ? prepareRows<Form, 6>
                                    : prepareRows<Form, kMostPieces>;
  launch(context, kernel, dim3(static_cast<unsigned>(persistentGrid(context, p.capacity, 12))), kPreparers, 0, p);
}

// ---- the product ---------------------------------------------------------------------------------------------------------------

constexpr int kHalfUnit = kUnit / kCluster;  // rows of a copy that goes to both blocks

/// The cut that all forms have.
template <bool kDual_>
struct Fp8Cut {
  static constexpr bool kDual = kDual_;
  static constexpr int kRows = 2 * kUnit, kColumns = 128;  // of a block: rows, weight rows
  static constexpr int kOwnOutputs = kDual ? kColumns / 2 : kColumns, kOutputs = kCluster * kOwnOutputs, kBox = kOwnOutputs;
  static constexpr int kPanelBytes = kRows * kRowBytes, kWeightsBytes = kColumns * kRowBytes;
};

template <class Form>
int64_t fp8SharedBytes(const GemmProblem& p) {
  return Form::kStages * (Form::kStageBytes + sizeof(int4) + 2 * sizeof(Barrier)) + 4 * kMultipliers * Form::kSpareBytes + sizeof(TensorMap) + prefixBytes(p);
}

/// The first warp: weights of this block, and half of each unit of rows for both.
template <class Form>
__device__ __forceinline__ void copyItems(const GemmProblem& p, const TensorMap& weightMap, const TensorMap& weightMap2, const TensorMap& rowMap, const Work& work,
                                          const Memory<Form>& m) {
  constexpr int kMatrices = Form::kDual ? 2 : 1, kOfPanel = static_cast<int>(kFp8Block) / Form::kPanels;
  const int rank = static_cast<int>(clusterRank()), blocks = static_cast<int>(depthOf(p) / kFp8Block);
  const bool leads = (threadIdx.x & 31) == 0;
  const uint64_t policy = usualPolicy();
  const TensorMap* map[2] = {&weightMap, &weightMap2};
  GroupMaps<kMatrices * (Form::kStages + 1)> maps(weightMap, m.map);
  RingPlace<Form::kStages> place;
  for (int item = blockIdx.x / kCluster; item < work.items(); item += gridDim.x / kCluster) {
    const WorkItem tile = work.at(item);
    const int rows = static_cast<int>(tile.rowEnd - tile.row), units = (rows + kUnit - 1) / kUnit, row = static_cast<int>(tile.row) + rank * kHalfUnit;
    const int output = static_cast<int>(tile.output) + rank * Form::kOwnOutputs;
    if (p.groupStart) {
#pragma unroll
      for (int i = 0; i < kMatrices; ++i) map[i] = maps.of(matrixOf(p, tile.group, i == 1).data);
    }
    if (leads) {
      for (int block = 0; block < blocks; ++block, place.next()) {
        Barrier* full = m.full + place.stage;
        wait(m.empty + place.stage, place.phase ^ 1);
        if (block == 0) m.tiles[place.stage] = make_int4(static_cast<int>(tile.row), rows, output, tile.group);
        arriveExpecting(full, Form::kWeightsBytes + Form::kPanels * units * kUnit * kRowBytes);
        const int k = block * static_cast<int>(kFp8Block);
#pragma unroll
        for (int i = 0; i < kMatrices; ++i) copyBox(m.weights(place.stage) + i * Form::kBox * kRowBytes, map[i], full, k, output, policy);
        for (int unit = 0; unit < units; ++unit) {
#pragma unroll
          for (int panel = 0; panel < Form::kPanels; ++panel)
            copyBoxToAll(m.rows(place.stage) + panel * Form::kPanelBytes + (unit * kUnit + rank * kHalfUnit) * kRowBytes, &rowMap, full, k + panel * kOfPanel,
                         row + unit * kUnit, (1 << kCluster) - 1, policy);
        }
      }
    }
    __syncwarp();
  }
}

template <class Form>
__global__ void __launch_bounds__(kThreads, 1) gemmManyFp8(const __grid_constant__ GemmProblem p, const __grid_constant__ TensorMap weightMap,
                                                           const __grid_constant__ TensorMap weightMap2, const __grid_constant__ TensorMap rowMap) {
  awaitPrevious();
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(1024) unsigned char shared[];
  const Memory<Form> m(shared);
  if (threadIdx.x == 0) {
    prefetchMap(&rowMap);
    for (int stage = 0; stage < Form::kStages; ++stage) {
      initBarrier(m.full + stage, 1 + Form::kHelpers / 32);
      initBarrier(m.empty + stage, kCluster * kMultipliers * 4);
    }
    fenceBarriers();
  }
  const Work work(p, Form::kRows, Form::kOutputs, m.prefix);
  syncCluster();
  if (threadIdx.x < 128) {
    fewerRegisters<Form::kProducerRegisters>();
    if (threadIdx.x < 32) copyItems(p, weightMap, weightMap2, rowMap, work, m);
    else if (threadIdx.x < 32 + Form::kHelpers) Form::help(p, work, m);
  } else {
    moreRegisters<Form::kMultiplierRegisters>();
    const int clusters = gridDim.x / kCluster;
    Consumer<Form> ring(m, false);
    for (int items = (work.items() - static_cast<int>(blockIdx.x) / kCluster + clusters - 1) / clusters; items > 0; --items) {
      ring.await();
      const int4 tile = m.tiles[ring.place.stage];
      __syncwarp();  // all lanes have it, before one of them gives the stage back
      Form::multiply(p, ring, tile, threadIdx.x / 128 - 1);
    }
  }
  syncCluster();  // the other block may still send rows here, or say that it has read its own
#endif
}

/// False: nothing launched, for want of room ahead or in shared memory.
template <class Form>
bool launchManyFp8(const CudaContext& context, const GemmProblem& p) {
  const int64_t k = depthOf(p), outputs = outputsOf(p), sharedBytes = fp8SharedBytes<Form>(p);
  if (!p.ahead || p.aheadStride < Form::rowBytes(k) || p.aheadStride % 16 != 0 || reinterpret_cast<uintptr_t>(p.ahead) % 16 != 0) return false;
  if (sharedBytes > context.sharedBytes || context.multiprocessors > kMostMultiprocessors || k > kPiece * kMostPieces) return false;
  launchPrepare<Form>(context, p);
  const auto weightMap = [&](const void* data) { return matrixMap(data, 1, outputs, k, k, Form::kBox, kFp8Block, kRowBytes); };
  const TensorMap first = weightMap(p.groupStart ? p.ahead : p.weight.data);  // of a group's matrices all but the address
  const TensorMap second = Form::kDual && !p.groupStart ? weightMap(p.weight2.data) : first;
  const TensorMap rowMap = matrixMap(p.ahead, Form::kPanels, p.capacity, k, p.aheadStride, kHalfUnit, kFp8Block / Form::kPanels, kRowBytes);
  const int64_t clusters = std::min<int64_t>(mostItems(p, Form::kRows, Form::kOutputs), context.multiprocessors / kCluster);
  const LaunchShape shape{dim3(static_cast<unsigned>(kCluster * clusters)), kThreads, static_cast<size_t>(sharedBytes), kCluster};
  launch(context, gemmManyFp8<Form>, shape, p, first, second, rowMap);
  return true;
}

}  // namespace longcat::cuda::many
