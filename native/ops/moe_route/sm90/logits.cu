// The router's logits on Hopper's tensor cores, for any number of rows.
//
// The one order of a logit's sum: hidden is cut into kLanes lanes of whole steps of kStep numbers. A lane is one chain of products of depth
// 16 from zero: sixteen numbers of hidden after the other, of each sixteen one part of the weights (parts.cuh) after the other, the greatest
// first. Lanes are added in ascending order.
//
// A cluster of kBlocks blocks owns kOutputs outputs of up to kRows rows. Each of the two warpgroups of a block multiplies one lane, which a
// warp copies for it through a ring in shared memory; for few rows the ring holds the whole lane, so that all of the classifier is under way
// before the first product, and before the rows are there. Sums go to the block of the cluster that owns them, which adds the lanes.
#include "cuda/dependent.cuh"
#include "cuda/gemm_formats.cuh"
#include "cuda/hopper/copy.cuh"
#include "cuda/hopper/exchange.cuh"
#include "cuda/hopper/tensor_map.h"
#include "cuda/launch.cuh"
#include "cuda/vectors.cuh"
#include "ops/moe_route/sm90/parts.cuh"
#include "ops/moe_route/sm90/route.h"
#include "ops/moe_route/turn.cuh"

namespace longcat::cuda {
namespace {

using namespace router;

constexpr int kBlocks = 8, kGroups = 2, kLanes = kBlocks * kGroups;
constexpr int kOwned = kOutputs / kBlocks;  // outputs whose lanes a block adds
constexpr int kMultipliers = kGroups * 128, kThreads = kMultipliers + kGroups * 32;
constexpr int kSharedBytes = 227 << 10;

/// Shared memory of a block: a ring for each warpgroup, then the lanes' sums of the block's outputs.
template <class W, int kRows>
struct Memory {
  static constexpr int kWeightBytes = kOutputs * kStep * sizeof(W), kStageBytes = kWeightBytes + kRows * kStep * static_cast<int>(sizeof(Bf16));
  static constexpr int kPitch = kRows + 4;  // from an output's sums to the next one's: eight times four of them are in banks of their own
  static constexpr int kSumBytes = kLanes * kOwned * kPitch * 4;
  static constexpr int kFit = (kSharedBytes - kSumBytes - 256) / (kGroups * kStageBytes), kStages = kFit < 6 ? kFit : 6;
  static constexpr int kBytes = kGroups * kStages * kStageBytes + kSumBytes + (2 * kGroups * kStages + 1) * 8;
  static_assert(kStages >= 2 && kStageBytes % 1024 == 0 && kBytes <= kSharedBytes);

  unsigned char* base;
  __device__ __forceinline__ unsigned char* weights(int group, int stage) const { return base + (group * kStages + stage) * kStageBytes; }
  __device__ __forceinline__ unsigned char* rows(int group, int stage) const { return weights(group, stage) + kWeightBytes; }
  __device__ __forceinline__ float* sums(int lane, int owned) const {
    return reinterpret_cast<float*>(base + kGroups * kStages * kStageBytes) + (lane * kOwned + owned) * kPitch;
  }
  __device__ __forceinline__ Barrier* barriers() const { return reinterpret_cast<Barrier*>(base + kGroups * kStages * kStageBytes + kSumBytes); }
  __device__ __forceinline__ Barrier* full(int group, int stage) const { return barriers() + 1 + group * kStages + stage; }
  __device__ __forceinline__ Barrier* empty(int group, int stage) const { return full(kGroups + group, stage); }
  __device__ __forceinline__ Barrier* allSums() const { return barriers(); }

  /// One thread.
  __device__ void initialise() const {
    initBarrier(allSums(), 1);
    for (int group = 0; group < kGroups; ++group) {
      for (int stage = 0; stage < kStages; ++stage) {
        initBarrier(full(group, stage), 1);
        initBarrier(empty(group, stage), 4);
      }
    }
    fenceBarriers();
    arriveExpecting(allSums(), kLanes * kOwned * kRows * 4);
  }
};

/// What is a lane's: steps [first, end).
struct Lane {
  int first, end;
  __device__ Lane(int64_t hidden, int lane) {
    const int steps = static_cast<int>((hidden + kStep - 1) / kStep);
    first = laneBegin(steps, lane, kLanes), end = laneBegin(steps, lane + 1, kLanes);
  }
};

/// Copies a lane. One thread.
template <class W, int kRows>
__device__ __forceinline__ void copyLane(const Memory<W, kRows>& memory, int group, const Lane& lane, const TensorMap& weightMap, const TensorMap& rowMap) {
  constexpr int kStages = Memory<W, kRows>::kStages, kBoxColumns = 64;  // of two bytes each
  const uint64_t weightPolicy = gridDim.z == 1 ? readOncePolicy() : readAgainPolicy(), rowPolicy = readAgainPolicy();
  const auto copyWeights = [&](int step, int stage) {
    arriveExpecting(memory.full(group, stage), memory.kStageBytes);
#pragma unroll
    for (int box = 0; box < Parts<W>::kBoxes; ++box)
      copyBox(memory.weights(group, stage) + box * kOutputs * 128, &weightMap, memory.full(group, stage), (step * Parts<W>::kBoxes + box) * kBoxColumns,
              blockIdx.y * kOutputs, weightPolicy);
  };
  const auto copyRows = [&](int step, int stage) {
    copyBox(memory.rows(group, stage), &rowMap, memory.full(group, stage), step * kStep, blockIdx.z * kRows, rowPolicy);
  };
  const int begun = min(lane.end - lane.first, kStages);
  prefetchMap(&rowMap);
  for (int i = 0; i < begun; ++i) copyWeights(lane.first + i, i);
  awaitPrevious();
  for (int i = 0; i < begun; ++i) copyRows(lane.first + i, i);
  RingPlace<kStages> place;
  for (int step = lane.first + begun; step < lane.end; ++step) {
    wait(memory.empty(group, place.stage), place.phase);
    copyWeights(step, place.stage);
    copyRows(step, place.stage);
    place.next();
  }
}

/// A lane's sums of the tile. A warpgroup.
template <class W, int kRows>
__device__ __forceinline__ void multiplyLane(const Memory<W, kRows>& memory, int group, const Lane& lane, float (&sum)[kRows / 2]) {
  Parts<W> parts;
  RingPlace<Memory<W, kRows>::kStages> place;
  int before = 0;
  holdRegisters(sum);
  for (int step = lane.first; step < lane.end; ++step) {
    wait(memory.full(group, place.stage), place.phase);
    parts.template multiply<kRows>(sum, memory.weights(group, place.stage), memory.rows(group, place.stage), [&] {
      __syncwarp();  // all lanes' loads
      if (step > lane.first && (threadIdx.x & 31) == 0) arrive(memory.empty(group, before));
    });
    before = place.stage;
    place.next();
  }
  waitProducts<0>();
  holdRegisters(sum);
}

/// To the blocks that own the outputs.
template <class W, int kRows>
__device__ __forceinline__ void sendSums(const Memory<W, kRows>& memory, int lane, const float (&sum)[kRows / 2]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int output = Parts<W>::outputOf(half), owner = output / kOwned;
    const uint32_t to = addressIn(memory.sums(lane, output % kOwned) + threadIdx.x % 4 * 2, owner), barrier = addressIn(memory.allSums(), owner);
#pragma unroll
    for (int j = 0; j < kRows / 8; ++j) storeAt(to + j * 32, make_float2(sum[4 * j + 2 * half], sum[4 * j + 2 * half + 1]), barrier);
  }
}

/// The logits of the block's own outputs. Both warpgroups.
template <class W, int kRows>
__device__ __forceinline__ void addLanes(const MoeRouteParams& p, const Memory<W, kRows>& memory) {
  const int64_t firstRow = static_cast<int64_t>(blockIdx.z) * kRows, live = liveRows(p.rows, p.capacity), all = p.classifier.rows;
  const int64_t firstOutput = static_cast<int64_t>(blockIdx.y) * kOutputs + clusterRank() * kOwned;
  waitAcross(memory.allSums(), 0);
  for (int i = threadIdx.x; i < kOwned * kRows; i += kMultipliers) {
    const int owned = i % kOwned, r = i / kOwned;
    float total = memory.sums(0, owned)[r];
#pragma unroll
    for (int lane = 1; lane < kLanes; ++lane) total += memory.sums(lane, owned)[r];
    if (firstRow + r < live && firstOutput + owned < all) p.scores[(firstRow + r) * all + firstOutput + owned] = total;
  }
}

/// Block (x, y, z): block x of the cluster of outputs from kOutputs · y, rows from kRows · z on.
template <class W, int kRows>
__global__ void __launch_bounds__(kThreads, 1)
    logitsOfTile(const __grid_constant__ MoeRouteParams p, const __grid_constant__ TensorMap weightMap, const __grid_constant__ TensorMap rowMap) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(1024) unsigned char shared[];
  letNextBegin();
  if (blockIdx.z > 0) {
    awaitPrevious();
    if (blockIdx.z * kRows >= liveRows(p.rows, p.capacity)) return;  // the whole cluster
  }
  const Memory<W, kRows> memory{shared};
  const int warp = static_cast<int>(threadIdx.x) >> 5, group = warp < kMultipliers / 32 ? warp / 4 : warp - kMultipliers / 32;
  const int laneOfGroup = static_cast<int>(clusterRank()) * kGroups + group;
  const Lane lane(p.classifier.columns, laneOfGroup);
  if (threadIdx.x == 0) memory.initialise();
  arriveAtCluster();
  __syncthreads();
  if (warp >= kMultipliers / 32) {
    if ((threadIdx.x & 31) == 0) copyLane(memory, group, lane, weightMap, rowMap);
    waitForCluster();
    return;
  }
  awaitPrevious();
  if (threadIdx.x == 0 && blockIdx.x == 0 && blockIdx.y == 0 && blockIdx.z == 0) noneHasChosen(p);
  float sum[kRows / 2] = {};
  multiplyLane(memory, group, lane, sum);
  waitForCluster();  // all barriers are there
  sendSums(memory, laneOfGroup, sum);
  addLanes(p, memory);  // and all that is sent here has come when the block ends
#endif
}

template <class W, int kRows>
void launchTiles(const CudaContext& context, const MoeRouteParams& p) {
  const int64_t hidden = p.classifier.columns, all = p.classifier.rows, rowBytes = hidden * static_cast<int64_t>(sizeof(W));
  const TensorMap weightMap = matrixMap(p.classifier.data, 2, all, rowBytes / 2, rowBytes, kOutputs, 64, 128);  // whatever the bytes mean
  const TensorMap rowMap = matrixMap(p.h.data, 2, p.capacity, hidden, 2 * hidden, kRows, kStep, 128);
  const dim3 grid(kBlocks, static_cast<unsigned>(ceilDiv(all, kOutputs)), static_cast<unsigned>(ceilDiv(p.capacity, kRows)));
  launch(context, logitsOfTile<W, kRows>, LaunchShape{grid, kThreads, Memory<W, kRows>::kBytes, kBlocks}, p, weightMap, rowMap);
}

template <class W>
void launchLogits(const CudaContext& context, const MoeRouteParams& p) {
  if (p.capacity <= 8) launchTiles<W, 8>(context, p);
  else if (p.capacity <= 16) launchTiles<W, 16>(context, p);
  else if (p.capacity <= 32) launchTiles<W, 32>(context, p);
  else if (p.capacity <= 64) launchTiles<W, 64>(context, p);
  else launchTiles<W, 128>(context, p);
}

}  // namespace

bool logitsOnTensorCores(const CudaContext& context, const MoeRouteParams& p) {
  const int64_t hidden = p.classifier.columns;
  return context.capability == 90 && context.sharedBytes >= kSharedBytes && p.activation == DType::bf16 && p.classifier.rows > kTinyOutputs &&
         rowsAligned(p.h.as<Bf16>(), hidden) && rowsAligned(static_cast<const Bf16*>(p.classifier.data), hidden);
}

void launchTensorLogits(const CudaContext& context, const MoeRouteParams& p) {
  if (p.classifier.dtype == DType::bf16) launchLogits<Bf16>(context, p);
  else launchLogits<float>(context, p);
}

}  // namespace longcat::cuda
