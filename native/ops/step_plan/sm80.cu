// step_plan on a GPU: one launch. The last block lists the decode splits; rows' tokens and rotations are spread over all others. Who needs
// to know where a row runs works it out, since blocks do not wait for one another.
#include "cuda/dependent.cuh"
#include "cuda/launch.cuh"
#include "cuda/numbers.cuh"
#include "ops/mla_decode/params.h"
#include "ops/op.h"
#include "ops/step_plan/plan.h"

namespace longcat::cuda {
namespace {

constexpr int kThreads = 256;

/// The sequence whose rows include r, or −1. Starts ascend; an empty sequence has no rows.
__device__ int sequenceOf(const StepPlanParams& p, int sequences, int64_t r) {
  int low = 0, high = sequences;  // the first sequence that starts beyond r lies in [low, high]
  while (low < high) {
    const int middle = (low + high) / 2;
    if (p.seqStart[middle] <= r) low = middle + 1;
    else high = middle;
  }
  return low > 0 && r < p.seqStart[low] ? low - 1 : -1;
}

struct RowPlan {
  RowPlace place;
  int32_t token;
  bool isPrompt, isLast;  // isLast: of a prompt's chunk
};

/// Any block may ask for any row: nothing is read that this kernel writes, but for a decode's history, which only prompts' rows write, in
/// other slots.
__device__ RowPlan planOf(const StepPlanParams& p, int sequences, int prompts, int64_t r) {
  const int s = sequenceOf(p, sequences, r);
  if (s < 0) return {{0, 0}, 0, false, false};
  if (s < prompts) return {{p.seqSlot[s], p.promptPositions[r]}, p.tokenIds[r], true, r + 1 == p.seqStart[s + 1]};
  const RowPlace place = decodePlace(p, p.seqSlot[s], p.seqLimit[s], static_cast<int32_t>(r - p.seqStart[s]));
  return {place, tokenAt(p, place), false, false};
}

__device__ void remember(const StepPlanParams& p, int32_t slot, int64_t position, int32_t token) {
  if (position >= 0 && position < p.historyStride) p.history[slot * p.historyStride + position] = token;
}

/// Slot, position and token of a row.
__device__ void planRow(const StepPlanParams& p, int sequences, int prompts, int64_t r) {
  const RowPlan row = planOf(p, sequences, prompts, r);
  p.rowSlot[r] = row.place.slot;
  p.positions[r] = row.place.position;
  p.tokens[r] = row.token;
  if (!row.isPrompt) return;
  remember(p, row.place.slot, row.place.position, row.token);
  if (!row.isLast) return;
  p.lengths[row.place.slot] = row.place.position;
  const int32_t next = p.seqNext[sequenceOf(p, sequences, r)];
  if (next >= 0) remember(p, row.place.slot, row.place.position + int64_t{1}, next);
}

/// Where a row of logits comes from.
__device__ void planLogits(const StepPlanParams& p, int sequences, int prompts, int64_t rows, int64_t i) {
  const int64_t r = p.logitRows[i];
  const bool exists = r >= 0 && r < rows;
  const RowPlan row = planOf(p, sequences, prompts, exists ? r : 0);
  const bool hasPlace = exists && row.place.slot != p.spareSlot;
  p.logitPosition[i] = hasPlace ? row.place.position + 1 : -1;
  p.logitToken[i] = hasPlace ? row.token : -1;
}

/// The angle is a float32 product, as on the CPU; its cosine and sine come from float64 and are thus exact to the last bit but for
/// rare ties.
__device__ void planAngle(const StepPlanParams& p, int64_t r, int32_t position, int64_t j) {
  const int64_t half = p.rope / 2;
  const float angle = __fmul_rn(static_cast<float>(position), p.invFreq[j]);
  double sine, cosine;
  sincos(static_cast<double>(angle), &sine, &cosine);
  float* out = p.cosSin + r * p.rope;
  out[j] = static_cast<float>(cosine) * p.rotaryScale;
  out[half + j] = static_cast<float>(sine) * p.rotaryScale;
}

/// Sum of v over this and all earlier threads of the block. `shared`: one number a warp.
__device__ int blockInclusiveSum(int v, int* shared) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
#pragma unroll
  for (int d = 1; d < 32; d <<= 1) {
    const int lower = __shfl_up_sync(0xffffffffu, v, d);
    if (lane >= d) v += lower;
  }
  __syncthreads();  // of an earlier use
  if (lane == 31) shared[warp] = v;
  __syncthreads();
  for (int w = 0; w < warp; ++w) v += shared[w];
  return v;
}

/// (row, split) pairs in order, kThreads rows at a time: a prefix sum tells where each row's begin, then every thread writes pairs.
__device__ void planSplits(const StepPlanParams& p, int sequences, int prompts, int64_t rows) {
  __shared__ int warpSums[kThreads / 32];
  __shared__ int ends[kThreads];  // of each row of the tile: pairs up to its last
  int64_t listed = 0;
  for (int64_t first = clampCount(p.counts[numPrefillRows], rows); first < rows && listed < p.maxSplits; first += kThreads) {
    const int64_t r = first + threadIdx.x;
    const int splits = r < rows ? max(0, static_cast<int>(planOf(p, sequences, prompts, r).place.position / kSplitKeys + 1)) : 0;
    const int end = blockInclusiveSum(splits, warpSums);
    ends[threadIdx.x] = end;
    __syncthreads();
    const int total = ends[kThreads - 1];
    for (int n = threadIdx.x; n < total && listed + n < p.maxSplits; n += kThreads) {
      int low = 0, high = kThreads - 1;  // the first row whose end is beyond n
      while (low < high) {
        const int middle = (low + high) / 2;
        if (ends[middle] > n) high = middle;
        else low = middle + 1;
      }
      p.splits[2 * (listed + n)] = static_cast<int32_t>(first + low);
      p.splits[2 * (listed + n) + 1] = n - (low ? ends[low - 1] : 0);
    }
    listed += total;
    __syncthreads();  // before `ends` is written again
  }
  if (threadIdx.x == 0) p.counts[numSplits] = static_cast<int32_t>(listed < p.maxSplits ? listed : p.maxSplits);
}

__global__ void __launch_bounds__(kThreads) stepPlanKernel(const StepPlanParams p) {
  awaitThenLetNextBegin();
  const int64_t rows = clampCount(p.counts[numRows], p.capacity), half = p.rope / 2;
  const int sequences = static_cast<int>(clampCount(p.counts[numSequences], p.maxSequences));
  const int prompts = static_cast<int>(clampCount(p.counts[numPrefillSequences], sequences));
  const unsigned others = gridDim.x - 1;
  if (blockIdx.x == others) {
    planSplits(p, sequences, prompts, rows);
    return;
  }
  const int64_t logitRows = p.logitRows ? clampCount(p.counts[numLogitRows], p.maxLogitRows) : 0;
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x, threads = static_cast<int64_t>(others) * kThreads;
  for (int64_t r = thread; r < rows; r += threads) planRow(p, sequences, prompts, r);
  for (int64_t i = thread; i < logitRows; i += threads) planLogits(p, sequences, prompts, rows, i);
  if (half == 0) return;
  const int64_t promptRows = clampCount(p.counts[numPrefillRows], rows);
  const auto positionOf = [&](int64_t r) { return r < promptRows ? p.promptPositions[r] : planOf(p, sequences, prompts, r).place.position; };
  const int64_t rowsAtOnce = threads / half;  // each thread keeps its frequency where that is possible
  if (rowsAtOnce == 0) {
    for (int64_t i = thread; i < rows * half; i += threads) planAngle(p, i / half, positionOf(i / half), i % half);
    return;
  }
  const int64_t row = static_cast<uint32_t>(thread) / static_cast<uint32_t>(half), j = thread - row * half;
  if (row < rowsAtOnce)
    for (int64_t r = row; r < rows; r += rowsAtOnce) planAngle(p, r, positionOf(r), j);
}

}  // namespace

void step_plan(const void* params, const CudaContext& context) {
  const auto& p = *static_cast<const StepPlanParams*>(params);
  const int forRows = persistentGrid(context, ceilDiv(p.capacity * std::max<int64_t>(p.rope / 2, 1), kThreads), 2);
  launch(context, stepPlanKernel, forRows + 1, kThreads, 0, p);
}

}  // namespace longcat::cuda
