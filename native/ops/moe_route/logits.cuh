// The router's logits: h Cᵀ in float32, straight to `scores`. A warp takes kRows rows and kOutputs outputs; whatever these are, each
// sum has the order that sm80.cu states.
#pragma once

#include "cuda/dependent.cuh"
#include "cuda/launch.cuh"
#include "cuda/reduce.cuh"
#include "cuda/vectors.cuh"
#include "ops/moe_route/params.h"

namespace longcat::cuda {

/// The lanes' sums added in ascending order, to every lane.
__device__ __forceinline__ float sumOfLanes(float part) {
  float total = __shfl_sync(kAllLanes, part, 0);
#pragma unroll
  for (int lane = 1; lane < 32; ++lane) total += __shfl_sync(kAllLanes, part, lane);
  return total;
}

/// Floats of shared memory that a warp takes to add up its lanes' sums; one sum passes through registers.
template <int kSums>
constexpr int kParts = kSums == 1 ? 1 : 32 * (kSums | 1);

/// Logits of rows [row, row + kRows) below `rows` and outputs [output, output + kOutputs) below N. The whole warp calls; `parts` are its
/// own kParts floats.
template <class X, class W, bool kWhole, int kRows, int kOutputs>
__device__ __forceinline__ void logitsOf(const MoeRouteParams& p, int64_t row, int64_t rows, int64_t output, float* parts) {
  const int64_t hidden = p.classifier.columns, all = p.classifier.rows;
  const int lane = static_cast<int>(threadIdx.x) & 31;
  const X* h[kRows];
  const W* classifier[kOutputs];
  // Past the end, the last one again: computed for nothing, never written.
#pragma unroll
  for (int r = 0; r < kRows; ++r) h[r] = static_cast<const X*>(p.h.data) + (row + r < rows ? row + r : rows - 1) * hidden;
#pragma unroll
  for (int o = 0; o < kOutputs; ++o) classifier[o] = static_cast<const W*>(p.classifier.data) + (output + o < all ? output + o : all - 1) * hidden;

  float total[kRows][kOutputs] = {};
#pragma unroll(kRows * kOutputs == 1 ? 8 : kRows * kOutputs <= 8 ? 4 : 1)
  for (int64_t k = lane * kOctet; k < hidden; k += 32 * kOctet) {
    float w[kOutputs][kOctet];
#pragma unroll
    for (int o = 0; o < kOutputs; ++o) loadOctet<kWhole>(classifier[o] + k, hidden - k, w[o]);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      float x[kOctet];
      loadOctet<kWhole>(h[r] + k, hidden - k, x);
#pragma unroll
      for (int o = 0; o < kOutputs; ++o) {
#pragma unroll
        for (int i = 0; i < kOctet; ++i) total[r][o] = fmaf(x[i], w[o][i], total[r][o]);
      }
    }
  }
  constexpr int kSums = kRows * kOutputs, kPitch = kSums | 1;  // an odd pitch: every lane writes to a bank of its own
  static_assert(kSums <= 32);
  const auto store = [&](int sum, float logit) {
    const int64_t r = row + sum / kOutputs, o = output + sum % kOutputs;
    if (r < rows && o < all) p.scores[r * all + o] = logit;
  };
  if constexpr (kSums == 1) {
    const float logit = sumOfLanes(total[0][0]);
    if (lane == 0) store(0, logit);
  } else {
#pragma unroll
    for (int i = 0; i < kSums; ++i) parts[lane * kPitch + i] = total[i / kOutputs][i % kOutputs];
    __syncwarp();
    if (lane < kSums) {
      float logit = parts[lane];
#pragma unroll 8
      for (int l = 1; l < 32; ++l) logit += parts[l * kPitch + lane];
      store(lane, logit);
    }
    __syncwarp();  // the parts are free for the next rows
  }
}

/// Warps of a block: kRowWarps groups of kRows rows × kOutputWarps groups of kOutputs outputs. Block (x, y): those outputs, and groups of
/// rows y, y + gridDim.y, …
template <class X, class W, bool kWhole, int kRows, int kOutputs, int kRowWarps, int kOutputWarps>
__global__ void __launch_bounds__(kRowWarps * kOutputWarps * 32) logitsOfTile(const __grid_constant__ MoeRouteParams p) {
  awaitPrevious();
  __shared__ float parts[kRowWarps * kOutputWarps][kParts<kRows * kOutputs>];
  const int warp = static_cast<int>(threadIdx.x) >> 5;
  const int64_t rows = liveRows(p.rows, p.capacity), all = p.classifier.rows;
  const int64_t output = (static_cast<int64_t>(blockIdx.x) * kOutputWarps + warp % kOutputWarps) * kOutputs;
  if (output >= all) return;
  for (int64_t row = (static_cast<int64_t>(blockIdx.y) * kRowWarps + warp / kOutputWarps) * kRows; row < rows;
       row += static_cast<int64_t>(gridDim.y) * kRowWarps * kRows)
    logitsOf<X, W, kWhole, kRows, kOutputs>(p, row, rows, output, parts[warp]);
}

template <class X, class W, bool kWhole, int kRows, int kOutputs, int kRowWarps, int kOutputWarps>
void launchLogitsTile(const CudaContext& context, const MoeRouteParams& p) {
  const dim3 grid(static_cast<unsigned>(ceilDiv(p.classifier.rows, kOutputs * kOutputWarps)),
                  static_cast<unsigned>(std::min<int64_t>(ceilDiv(p.capacity, kRows * kRowWarps), 1024)));
  launch(context, logitsOfTile<X, W, kWhole, kRows, kOutputs, kRowWarps, kOutputWarps>, grid, kRowWarps * kOutputWarps * 32, 0, p);
}

template <class X, class W, bool kWhole>
void launchLogits(const CudaContext& context, const MoeRouteParams& p) {
  if (p.capacity == 1) launchLogitsTile<X, W, kWhole, 1, 1, 1, 2>(context, p);
  else if (p.capacity <= 4) launchLogitsTile<X, W, kWhole, 4, 1, 1, 2>(context, p);
  else if (p.capacity <= 32) launchLogitsTile<X, W, kWhole, 4, 2, 2, 2>(context, p);
  else launchLogitsTile<X, W, kWhole, 8, 4, 4, 2>(context, p);
}

}  // namespace longcat::cuda
