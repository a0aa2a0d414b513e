// Both latents' products on Hopper, for few rows: as many blocks as there are lanes of k in tiles of outputs, each with one of them, so that
// two thousand outputs occupy the whole card, and two blocks of a multiprocessor hold all weights that it will ever read. Nothing is added
// across blocks here: the kernel that norms the latents reads all lanes anyway.
#include "ops/mla_project/sm90/lanes.h"

#include "cuda/vectors.cuh"
#include "ops/mla_project/sm90/steps.cuh"

namespace longcat::cuda {
namespace {

using namespace steps;

template <class W>
constexpr int kMostRows = sizeof(W) == 1 ? 64 : 128;  // of a block: FP8 has two sums of each and converted weights in its registers

/// A tile of the outputs of both matrices: of one of them, from `output` on; the matrix begins at `first` of both together.
struct Tile {
  bool isQuery;
  int output, first;

  static __device__ __forceinline__ Tile ofBlock(const MlaProjectParams& p) {
    const int qRank = static_cast<int>(p.qA.rows), queryTiles = (qRank + kOutputs - 1) / kOutputs, tile = static_cast<int>(blockIdx.x);
    const bool isQuery = tile < queryTiles;
    return {isQuery, (isQuery ? tile : tile - queryTiles) * kOutputs, isQuery ? 0 : qRank};
  }
  __device__ __forceinline__ const WeightView& matrix(const MlaProjectParams& p) const { return isQuery ? p.qA : p.kvA; }
};

template <int kRows>
__device__ __forceinline__ void storeLane(const MlaProjectParams& p, const Tile& tile, int firstRow, int rows, const float (&sum)[kRows / 2]) {
  const int thread = static_cast<int>(threadIdx.x), left = static_cast<int>(tile.matrix(p).rows) - tile.output;
  const int64_t width = p.qA.rows + p.kvA.rows;
  float* lane = p.latentLanes + (blockIdx.y * p.laneRows + firstRow) * width + tile.first + tile.output;
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
  const Tile tile = Tile::ofBlock(p);
  const WeightView& matrix = tile.matrix(p);
  const Part part = Part::ofLane<W>(tile.output, matrix.columns, static_cast<int>(blockIdx.y), static_cast<int>(gridDim.y), static_cast<int>(blockIdx.z) * kRows);
  if (threadIdx.x == 0) memory.initialise();
  __syncthreads();
  if (threadIdx.x >= kMultipliers) {
    if (threadIdx.x == kMultipliers) copySteps(memory, part, gridDim.z == 1 ? readOncePolicy() : readAgainPolicy(), tile.isQuery ? queryMap : keyMap, rowMap);
    return;
  }
  float sum[kRows / 2] = {};
  awaitPrevious();
  const int rows = static_cast<int>(liveRows(p.rows, p.capacity)) - part.firstRow;  // known when the sums are
  multiplySteps(memory, part, part.scales(matrix), sum);
  storeLane<kRows>(p, tile, part.firstRow, rows, sum);
#endif
}

template <class W, int kRows>
void launchRows(const CudaContext& context, const MlaProjectParams& p, int lanes) {
  const int64_t k = p.qA.columns;
  const size_t bytes = Memory<W, kRows>::bytesOf(ceilDiv(k / Step<W>::kNumbers, lanes));
  const dim3 grid(static_cast<unsigned>(ceilDiv(p.qA.rows, kOutputs) + ceilDiv(p.kvA.rows, kOutputs)), static_cast<unsigned>(lanes),
                  static_cast<unsigned>(ceilDiv(p.capacity, kRows)));
  launch(context, sumLanes<W, kRows>, grid, kThreads, bytes, p, weightMapOf<W>(p.qA), weightMapOf<W>(p.kvA),
         rowMapOf(p.x.data, p.capacity, k, kRows));
}

template <class W>
void launchLanes(const CudaContext& context, const MlaProjectParams& p, int lanes) {
  if (p.capacity <= 8) launchRows<W, 8>(context, p, lanes);
  else if (p.capacity <= 16) launchRows<W, 16>(context, p, lanes);
  else if (p.capacity <= 32) launchRows<W, 32>(context, p, lanes);
  else if (p.capacity <= 64) launchRows<W, 64>(context, p, lanes);
  else launchRows<W, kMostRows<W>>(context, p, lanes);
}

}  // namespace

bool launchLatentLanes(const CudaContext& context, const MlaProjectParams& p) {
  const int64_t kvRank = p.kvA.rows - p.rope;
  const int lanes = lanesOf(p.qA.columns);
  const bool fits = lanes <= p.mostLanes && p.capacity <= p.laneRows && p.capacity > 0;
  const bool takes = p.qA.dtype == p.kvA.dtype && takesSteps(context, p.x.data, p.activation, p.qA) && takesSteps(context, p.x.data, p.activation, p.kvA);
  if (!fits || !takes || p.qA.rows % kOctet != 0 || kvRank % kOctet != 0 || p.rope % kOctet != 0) return false;
  if (p.qA.dtype == DType::f8e4m3) launchLanes<Fp8>(context, p, lanes);
  else launchLanes<Bf16>(context, p, lanes);
  return true;
}

}  // namespace longcat::cuda
