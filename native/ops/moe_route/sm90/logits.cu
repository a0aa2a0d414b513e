// The router's logits of few rows on tensor cores: all multiprocessors stream the classifier once.
//
// A cluster of kSlices blocks owns kN · 8 outputs and up to kM · 16 rows; a block takes a slice of hidden, each of its warps one run of it
// (parts.cuh). A warp copies what it will use to a queue of its own, so that no barrier is in the loop and as much is in flight as the
// queue holds. The warps' sums are added through shared memory, the blocks' through that of the cluster.
#include "cuda/hopper/cluster.cuh"
#include "cuda/hopper/launch.cuh"
#include "ops/moe_route/sm90/parts.cuh"
#include "ops/moe_route/sm90/route.h"

namespace longcat::cuda {
namespace {

constexpr int kThreads = kLanes * 32;
constexpr int64_t kFewerOutputs = 384;  // up to here 24 outputs a cluster, so that there are clusters enough

template <class W, int kM, int kN>
struct Queue {
  static constexpr int kWeightBytes = kStep * sizeof(W) * 8;  // of the eight outputs of a tile, in a step
  static constexpr int kRowBytes = kStep * sizeof(Bf16) * 8;  // of eight rows
  static constexpr int kStageBytes = kN * kWeightBytes + 2 * kM * kRowBytes;
  static constexpr int kStages = 3 * kLanes * kStageBytes <= 200 << 10 ? 3 : 2;
  static constexpr int kBytes = kStages * kStageBytes;  // of a warp
  static constexpr int kSums = kM * kN * 4 * 32;        // of a warp, at the queue's place when all of it has been used
  static_assert(kSums * 4 <= kBytes);
};

/// Eight rows of one step in a warp's queue, in 16-byte pieces such that lane (g, t) copies pieces t, t + 4, … of row g, whole sectors with its
/// neighbours, and reads its numbers of the j-th sixteen without bank conflicts: float32 its own piece j, bfloat16 half a piece of the quad's.
__device__ __forceinline__ int placeOfPiece(float, int g, int piece) { return (piece >> 2) * 512 + (g * 4 + (piece & 3)) * 16; }
__device__ __forceinline__ int placeOfPiece(Bf16, int g, int piece) { return g * 64 + (piece ^ (g & 2)) * 16; }
__device__ __forceinline__ uint4 numbersOf(float, const unsigned char* rows, int g, int t, int j) {
  return *reinterpret_cast<const uint4*>(rows + placeOfPiece(0.0f, g, 4 * j + t));
}
__device__ __forceinline__ uint2 numbersOf(Bf16, const unsigned char* rows, int g, int t, int j) {
  return *reinterpret_cast<const uint2*>(rows + placeOfPiece(Bf16(), g, 2 * j + (t >> 1)) + (t & 1) * 8);
}

template <class W, int kM, int kN>
__global__ void __launch_bounds__(kThreads, 1) logitsOfFew(const __grid_constant__ MoeRouteParams p) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using Queue = Queue<W, kM, kN>;
  extern __shared__ __align__(16) unsigned char shared[];
  allowNextLaunch();
  const int64_t firstRow = static_cast<int64_t>(blockIdx.z) * kM * 16, firstOutput = static_cast<int64_t>(blockIdx.y) * kN * 8;
  const int64_t hidden = p.classifier.columns, all = p.classifier.rows;
  if (blockIdx.z > 0 && firstRow >= liveRows(p.rows, p.capacity)) return;  // the whole cluster
  const int lane = static_cast<int>(threadIdx.x) & 31, warp = static_cast<int>(threadIdx.x) >> 5, g = lane >> 2, t = lane & 3;
  const int steps = static_cast<int>(hidden / kStep), run = static_cast<int>(blockIdx.x) * kLanes + warp;
  const int first = laneBegin(steps, run, kSlices * kLanes), end = laneBegin(steps, run + 1, kSlices * kLanes);
  unsigned char* queue = shared + warp * Queue::kBytes;

  // Rows up to the capacity can be read, live or not; what is computed of the others is not written.
  const auto copy = [&](int step, int stage) {
    unsigned char* to = queue + stage * Queue::kStageBytes;
#pragma unroll
    for (int n = 0; n < kN; ++n) {
      const int64_t output = firstOutput + n * 8 + g;
      const auto* from = static_cast<const unsigned char*>(p.classifier.data) + ((output < all ? output : 0) * hidden + static_cast<int64_t>(step) * kStep) * sizeof(W);
#pragma unroll
      for (int i = 0; i < static_cast<int>(sizeof(W)) / 2; ++i)
        copyAsync16(to + n * Queue::kWeightBytes + placeOfPiece(W(), g, 4 * i + t), from + (4 * i + t) * 16, output < all);
    }
#pragma unroll
    for (int i = 0; i < 2 * kM; ++i) {
      const int64_t row = firstRow + i * 8 + g;
      const auto* from = static_cast<const Bf16*>(p.h.data) + (row < p.capacity ? row : 0) * hidden + static_cast<int64_t>(step) * kStep + t * 8;
      copyAsync16(to + kN * Queue::kWeightBytes + i * Queue::kRowBytes + placeOfPiece(Bf16(), g, t), from, row < p.capacity);
    }
  };
#pragma unroll
  for (int s = 0; s < Queue::kStages; ++s) {
    if (first + s < end) copy(first + s, s);
    commitCopies();
  }
  const int64_t live = liveRows(p.rows, p.capacity);

  float sum[kM][kN][4] = {};
  int stage = 0;
  for (int step = first; step < end; ++step) {
    waitCopies<Queue::kStages - 1>();
    __syncwarp();  // the other lanes' copies
    const unsigned char* from = queue + stage * Queue::kStageBytes;
#pragma unroll
    for (int j = 0; j < kStep / 16; ++j) {
      uint2 x[kM][2];
      typename Parts<W>::Stored weight[kN];
#pragma unroll
      for (int i = 0; i < 2 * kM; ++i) x[i / 2][i % 2] = numbersOf(Bf16(), from + kN * Queue::kWeightBytes + i * Queue::kRowBytes, g, t, j);
#pragma unroll
      for (int n = 0; n < kN; ++n) weight[n] = numbersOf(W(), from + n * Queue::kWeightBytes, g, t, j);
      multiply<W>(sum, x, weight);
    }
    __syncwarp();  // all lanes have read the stage
    if (step + Queue::kStages < end) copy(step + Queue::kStages, stage);
    commitCopies();
    stage = stage + 1 == Queue::kStages ? 0 : stage + 1;
  }

  // [tile of rows][tile of outputs][upper, lower half][lane][two outputs]
  auto* sums = reinterpret_cast<float*>(queue);
#pragma unroll
  for (int i = 0; i < kM * kN * 2; ++i)
    reinterpret_cast<float2*>(sums)[i * 32 + lane] = make_float2(sum[i / (2 * kN)][i / 2 % kN][i % 2 * 2], sum[i / (2 * kN)][i / 2 % kN][i % 2 * 2 + 1]);
  __syncthreads();
  auto* ofBlock = reinterpret_cast<float*>(shared);
  for (int i = threadIdx.x; i < Queue::kSums; i += kThreads) {
    float total = ofBlock[i];
#pragma unroll
    for (int w = 1; w < kLanes; ++w) total += reinterpret_cast<const float*>(shared + w * Queue::kBytes)[i];
    ofBlock[i] = total;
  }
  syncCluster();
  constexpr int kShare = Queue::kSums / kSlices;
  for (int i = static_cast<int>(clusterRank()) * kShare + static_cast<int>(threadIdx.x), last = (static_cast<int>(clusterRank()) + 1) * kShare; i < last; i += kThreads) {
    float part[kSlices];
#pragma unroll
    for (int s = 0; s < kSlices; ++s) part[s] = loadOfBlock(ofBlock + i, s);
#pragma unroll
    for (int s = 1; s < kSlices; ++s) part[0] += part[s];
    const int tile = i / 128, of = i / 2 % 32;
    const int64_t row = firstRow + tile / kN * 16 + i / 64 % 2 * 8 + of / 4, output = firstOutput + tile % kN * 8 + of % 4 * 2 + i % 2;
    if (row < live && output < all) p.scores[row * all + output] = part[0];
  }
  syncCluster();  // no block ends while others read its sums
#endif
}

template <class W, int kM, int kN>
void launchFew(const CudaContext& context, const MoeRouteParams& p) {
  const dim3 grid(kSlices, static_cast<unsigned>(ceilDiv(p.classifier.rows, kN * 8)), static_cast<unsigned>(ceilDiv(p.capacity, kM * 16)));
  launch(context, logitsOfFew<W, kM, kN>, LaunchShape{grid, kThreads, static_cast<size_t>(kLanes * Queue<W, kM, kN>::kBytes), kSlices}, p);
}

template <class W, int kN>
void launchFew(const CudaContext& context, const MoeRouteParams& p) {
  if (p.capacity <= 16) launchFew<W, 1, kN>(context, p);
  else if (p.capacity <= 32) launchFew<W, 2, kN>(context, p);
  else launchFew<W, 4, kN>(context, p);
}

template <class W>
void launchLogits(const CudaContext& context, const MoeRouteParams& p) {
  if (p.classifier.rows > kFewerOutputs) launchFew<W, 6>(context, p);
  else launchFew<W, 3>(context, p);
}

}  // namespace

bool logitsOnTensorCores(const CudaContext& context, const MoeRouteParams& p) {
  const int64_t hidden = p.classifier.columns;
  return context.capability == 90 && p.activation == DType::bf16 && hidden % kStep == 0 && p.classifier.rows > kTinyOutputs &&
         rowsAligned(p.h.as<Bf16>(), hidden) && rowsAligned(static_cast<const Bf16*>(p.classifier.data), hidden);
}

void launchTensorLogits(const CudaContext& context, const MoeRouteParams& p) {
  if (p.classifier.dtype == DType::bf16) launchLogits<Bf16>(context, p);
  else launchLogits<float>(context, p);
}

}  // namespace longcat::cuda
