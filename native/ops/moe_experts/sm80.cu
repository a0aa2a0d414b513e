// moe_experts on a GPU: the experts' SwiGLU and their product down as two grouped products over the plan, then each token's weighted sum.
// The sum's order: the first expert's product, then one fused step an expert in ascending id, the identity term last.
#include "ops/moe_experts/params.h"

#include "cuda/dependent.cuh"
#include "cuda/gemm.h"
#include "cuda/launch.cuh"
#include "cuda/vectors.cuh"

namespace longcat::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kSlotsAtOnce = 4;  // experts' products under way at once

/// A token's sum so far. `any`: something is in it.
struct Total {
  float v[kOctet] = {};
  bool any = false;

  __device__ __forceinline__ void add(float weight, const float (&part)[kOctet]) {
#pragma unroll
    for (int i = 0; i < kOctet; ++i) v[i] = any ? fmaf(weight, part[i], v[i]) : weight * part[i];
    any = true;
  }
};

/// Block (x, y): octets of the row from x · kThreads on, tokens y, y + gridDim.y, …
template <class A, bool kWhole>
__global__ void __launch_bounds__(kThreads) combineTokens(const __grid_constant__ MoeExpertsParams p) {
  awaitPrevious();
  const int64_t rows = liveRows(p.rows, p.capacity), width = p.gate.columns;
  const int64_t k = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kOctet;
  if (k >= width) return;
  for (int64_t t = blockIdx.y; t < rows; t += gridDim.y) {
    Total total;
    for (int64_t first = 0; first < p.topK; first += kSlotsAtOnce) {
      int32_t entry[kSlotsAtOnce];
      float weight[kSlotsAtOnce], part[kSlotsAtOnce][kOctet];
#pragma unroll
      for (int s = 0; s < kSlotsAtOnce; ++s) {
        entry[s] = first + s < p.topK ? p.slotPlan[t * p.topK + first + s] : -1;
        weight[s] = entry[s] >= 0 ? p.weights[t * p.topK + first + s] : 0.0f;
      }
#pragma unroll
      for (int s = 0; s < kSlotsAtOnce; ++s) {
        if (entry[s] >= 0) loadOctet<kWhole>(static_cast<const A*>(p.partial.data) + entry[s] * width + k, width - k, part[s]);
      }
#pragma unroll
      for (int s = 0; s < kSlotsAtOnce; ++s) {
        if (entry[s] >= 0) total.add(weight[s], part[s]);
      }
    }
    const float identity = p.identityWeight[t];
    if (identity != 0.0f) {
      float h[kOctet];
      loadOctet<kWhole>(static_cast<const A*>(p.h.data) + t * width + k, width - k, h);
      total.add(identity, h);
    }
    storeOctet<kWhole>(static_cast<A*>(p.out.data) + t * width + k, width - k, total.v);
  }
}

template <class A>
void launchCombine(const CudaContext& context, const MoeExpertsParams& p) {
  const int64_t width = p.gate.columns;
  const bool whole = width % kOctet == 0 && rowsAligned(p.h.as<A>(), width) && rowsAligned(p.partial.as<A>(), width) && rowsAligned(p.out.as<A>(), width);
  const dim3 grid(static_cast<unsigned>(ceilDiv(width, kThreads * kOctet)), static_cast<unsigned>(persistentGrid(context, p.capacity, 16)));
  launch(context, whole ? combineTokens<A, true> : combineTokens<A, false>, grid, kThreads, 0, p);
}

/// What both products share: rows by plan entry, grouped by expert.
GemmProblem groupedProblem(const MoeExpertsParams& p) {
  GemmProblem g;
  g.activation = g.outDtype = p.activation;
  g.groupStart = p.expertStart;
  g.groups = p.gate.count;
  g.capacity = p.entries;
  g.expected = p.expected;
  return g;
}

}  // namespace

void moe_experts(const void* params, const CudaContext& context) {
  const auto& p = *static_cast<const MoeExpertsParams*>(params);
  if (p.entries == 0) return;
  const int64_t width = p.gate.columns, ffn = p.gate.rows;

  GemmProblem up = groupedProblem(p);
  up.x = p.h, up.xStride = width, up.rowIndex = p.planRow;
  up.stack = p.gate, up.stack2 = p.up;
  up.epilogue = Epilogue::swiglu;
  up.out = p.hidden, up.outStride = ffn;
  useAhead(up, p.partial.data, width);  // not yet written
  gemm(context, up);

  GemmProblem down = groupedProblem(p);
  down.x = p.hidden, down.xStride = ffn;
  down.groupsSettled = true;
  down.stack = p.down;
  down.out = p.partial, down.outStride = width;
  useAhead(down, p.hidden.data, ffn);  // nobody reads it afterwards
  gemm(context, down);

  if (p.out.data) LONGCAT_ACTIVATION(p.activation, A, { launchCombine<A>(context, p); });
}

}  // namespace longcat::cuda
