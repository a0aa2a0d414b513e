// ngram_embed of few rows on Hopper. A cluster has a block for each of the eight runs of k, and 192 outputs. So a block's weights fit in registers
// and are asked for before the step's tokens are known; and of what the tables in host memory have of a row, a block asks for its run alone.
// The runs' sums meet in the cluster: each block adds those of 24 outputs, in ascending order.
#include "ops/ngram_embed/sm90/few.h"

#include "cuda/dependent.cuh"
#include "cuda/hopper/cluster.cuh"
#include "cuda/launch.cuh"
#include "ops/ngram_embed/rows.cuh"

namespace longcat::cuda {
namespace {

constexpr int kOutputs = 192;                    // of a cluster, 16 a warp
constexpr int kThreads = kOutputs / 16 * 32;
constexpr int kOwned = kOutputs / kParts;        // outputs that a block adds up, four a thread
constexpr int kMostSteps = 12;                   // of a run: a thread has the weights in registers
constexpr int kOctets = kMostSteps * kStep / kOctet;  // of a row's pieces in a run
constexpr int kStride = kMostSteps * kStep + 32;  // numbers from row to row: 64 bytes beyond a multiple of 128, so that no two lanes of a load meet
constexpr int kSumStride = kOutputs + 4;         // floats from row to row: no two lanes of a store meet in a bank

template <int kRows>
struct FewShared {
  alignas(16) Bf16 pieces[kRows * kStride];
  alignas(16) float sums[kRows * kSumStride];
  int32_t ids[kRows * (kMostSteps + 1)];  // of the tables that the run touches
};

/// The block's run of k.
struct OwnRun : Run {
  int firstTable, tables;
  __device__ OwnRun(const NgramEmbedParams& p, int part) : Run(p, part) {
    const int width = static_cast<int>(tableWidth(p));
    firstTable = begin * kStep / width;
    tables = end > begin ? (end * kStep - 1) / width + 1 - firstTable : 0;
  }
  __device__ int steps() const { return end - begin; }
};

/// The run's part of 16 outputs, in a thread's registers.
struct FewWeights {
  uint4 low[kMostSteps], high[kMostSteps];

  __device__ __forceinline__ FewWeights(const NgramEmbedParams& p, const OwnRun& run, int64_t output) {
    const int64_t last = p.wordTable.columns - 1, o = output + ((threadIdx.x & 31) >> 2);
#pragma unroll
    for (int s = 0; s < kMostSteps; ++s) {
      if (s >= run.steps()) break;
      low[s] = __ldg(weightsAt(p, run.begin + s, o < last ? o : last));  // past the end, the last one again
      high[s] = __ldg(weightsAt(p, run.begin + s, o + 8 < last ? o + 8 : last));
    }
  }
  template <int kRows>
  __device__ __forceinline__ void multiply(const OwnRun& run, FewShared<kRows>& shared) const {
    const int lane = static_cast<int>(threadIdx.x) & 31, group = lane >> 2, quad = lane & 3, warp = static_cast<int>(threadIdx.x) >> 5;
    float sum[kRows / 8][4] = {};
#pragma unroll
    for (int s = 0; s < kMostSteps; ++s) {
      if (s >= run.steps()) break;
#pragma unroll
      for (int t = 0; t < kRows / 8; ++t)
        multiplyStep(sum[t], low[s], high[s], *reinterpret_cast<const uint4*>(shared.pieces + (t * 8 + group) * kStride + s * kStep + quad * kOctet));
    }
#pragma unroll
    for (int t = 0; t < kRows / 8; ++t) {
#pragma unroll
      for (int e = 0; e < 4; ++e) shared.sums[(t * 8 + 2 * quad + (e & 1)) * kSumStride + warp * 16 + group + (e >> 1) * 8] = sum[t][e];
    }
  }
};

/// Four outputs of a row that a thread adds up, if it has any.
struct Share {
  bool is = false;
  int row, column;  // of the cluster's outputs
  int64_t output;
  float words[4];

  __device__ __forceinline__ Share(const NgramEmbedParams& p, int64_t rows, int part, int64_t firstOutput) {
    row = static_cast<int>(threadIdx.x) / (kOwned / 4), column = part * kOwned + static_cast<int>(threadIdx.x) % (kOwned / 4) * 4, output = firstOutput + column;
    is = row < rows && output < p.wordTable.columns;
    if (!is) return;
    const int32_t token = tokenOf(p, row);
#pragma unroll
    for (int j = 0; j < 4; ++j) words[j] = output + j < p.wordTable.columns ? wordOf(p, token, output + j) : 0.0f;
  }
  __device__ __forceinline__ void write(const NgramEmbedParams& p, const float* sums) const {
    if (!is) return;
    uint4 parts[kParts];
#pragma unroll
    for (int i = 0; i < kParts; ++i) parts[i] = loadOfBlock(reinterpret_cast<const uint4*>(sums + row * kSumStride + column), i);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const auto of = [&](int i) { return __uint_as_float(j == 0 ? parts[i].x : j == 1 ? parts[i].y : j == 2 ? parts[i].z : parts[i].w); };
      float projected = of(0);
#pragma unroll
      for (int i = 1; i < kParts; ++i) projected += of(i);
      if (output + j < p.wordTable.columns) writeMean(p, row, output + j, words[j], projected);
    }
  }
};

template <int kRows, bool kWhole>
__global__ void __launch_bounds__(kThreads, 1) embedFew(const __grid_constant__ NgramEmbedParams p) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  __shared__ FewShared<kRows> shared;
  const int part = static_cast<int>(clusterRank()), thread = static_cast<int>(threadIdx.x);
  const int64_t firstOutput = static_cast<int64_t>(blockIdx.x / kParts) * kOutputs;
  const OwnRun run(p, part);
  const FewWeights weights(p, run, firstOutput + thread / 32 * 16);
  awaitThenLetNextBegin();
  const int64_t rows = liveRows(p.rows, p.capacity);
  if (rows == 0) return;  // alike in all blocks
  for (int i = thread; i < rows * run.tables; i += kThreads) shared.ids[i] = idOf(p, i / run.tables, run.firstTable + i % run.tables);
  __syncthreads();

  // Rows that are not there have sums that nobody looks at.
  uint4 pieces[kRows / 8];
  const int octets = run.steps() * kStep / kOctet, width = static_cast<int>(tableWidth(p));
  const auto forOctets = [&](const auto& visit) {
#pragma unroll
    for (int u = 0; u < kRows / 8; ++u) {
      const int i = u * kThreads + thread, row = i / kOctets, octet = i % kOctets;
      if (row < rows && octet < octets) visit(pieces[u], row, octet);
    }
  };
  static_assert(kThreads == 8 * kOctets);
  forOctets([&](uint4& bits, int row, int octet) {
    const int k = run.begin * kStep + octet * kOctet, table = k / width;
    bits = loadPieces<kWhole>(p, table, shared.ids[row * run.tables + table - run.firstTable], k);
  });
  const Share share(p, rows, part, firstOutput);  // while those are under way
  forOctets([&](const uint4& bits, int row, int octet) { *reinterpret_cast<uint4*>(shared.pieces + row * kStride + octet * kOctet) = bits; });
  __syncthreads();

  weights.multiply(run, shared);
  syncCluster();
  share.write(p, shared.sums);
  syncCluster();  // nobody ends while others read its sums
#endif
}

}  // namespace

template <bool kWhole>
bool embedFewRows(const CudaContext& context, const NgramEmbedParams& p) {
  constexpr int kMostRows = 16;
  const int64_t steps = p.wordTable.columns / kStep;
  if (context.capability != 90 || p.capacity > kMostRows || ceilDiv(steps, kParts) > kMostSteps) return false;
  const LaunchShape shape{dim3(static_cast<unsigned>(ceilDiv(p.wordTable.columns, kOutputs) * kParts)), kThreads, 0, kParts};
  launch(context, p.capacity <= 8 ? embedFew<8, kWhole> : embedFew<kMostRows, kWhole>, shape, p);
  return true;
}
template bool embedFewRows<true>(const CudaContext&, const NgramEmbedParams&);
template bool embedFewRows<false>(const CudaContext&, const NgramEmbedParams&);

}  // namespace longcat::cuda
