// moe_route on a GPU: logits of all rows, then softmax and choice, a warp a row, then the plan, where there is to be one. Few rows take one launch for
// all that follows the logits, or for everything where the router is tiny; many rows take three, or two without a plan. On Hopper sm90/ has logits on tensor cores, and a
// choice by more warps a row, with a sum of its own.
//
// The order of a logit's sum by multiply-adds: hidden is cut in chunks of eight; lane l of 32 adds the products of chunks l, l + 32, … in
// ascending order, and the lanes' sums are added in ascending order. (On tensor cores: sm90/logits.cu.) Softmax: lane l adds ids l,
// l + 32, … in ascending order, then a butterfly.
#include "ops/moe_route/params.h"

#include "cuda/dependent.cuh"
#include "cuda/launch.cuh"
#include "ops/moe_route/logits.cuh"
#include "ops/moe_route/choose.cuh"
#include "ops/moe_route/plan.cuh"
#include "ops/moe_route/sm90/route.h"

namespace longcat::cuda {
namespace {

constexpr int kFewThreads = 512;               // of the one block that few rows share
constexpr int64_t kFewRows = 64;
constexpr int64_t kTinyProducts = 1 << 16;     // rows · N · hidden that this block can do on the side
constexpr int kTinyPerLane = kTinyOutputs / 32;
constexpr int kChooseThreads = 256;
constexpr int kPlanThreads = 1024;
constexpr int kExpertsOfBlock = 4;             // experts that a block plans where rows are many

/// Choice of few rows, by one block, and their plan, if there is to be one.
template <int kPerLane>
__device__ __forceinline__ void chooseAndPlan(const MoeRouteParams& p, int64_t rows) {
  __shared__ PlanShared plan;
  __shared__ ChoiceShared choice[kFewThreads / 32];
  const int64_t warp = threadIdx.x >> 5;
  LaneScores<kPerLane> mine(p);
  for (int64_t r = warp; r < rows; r += kFewThreads / 32) chooseOfRow(p, r, mine, choice[warp]);
  __syncthreads();
  if (p.expertStart) ExpertPlan<kFewThreads>(p, rows, plan).make(0, static_cast<int>(p.experts));
}

template <int kPerLane>
__global__ void __launch_bounds__(kFewThreads, 1) chooseFew(const __grid_constant__ MoeRouteParams p) {
  awaitPrevious();
  chooseAndPlan<kPerLane>(p, liveRows(p.rows, p.capacity));
}

/// With the products as well.
template <class X, class W, bool kWhole>
__global__ void __launch_bounds__(kFewThreads) routeFew(const __grid_constant__ MoeRouteParams p) {
  awaitPrevious();
  const int64_t rows = liveRows(p.rows, p.capacity), all = p.classifier.rows;
  for (int64_t i = threadIdx.x >> 5; i < rows * all; i += kFewThreads / 32) logitsOf<X, W, kWhole, 1, 1>(p, i / all, rows, i % all, nullptr);
  __syncthreads();
  chooseAndPlan<kTinyPerLane>(p, rows);
}

template <int kPerLane>
__global__ void __launch_bounds__(kChooseThreads, 1) chooseMany(const __grid_constant__ MoeRouteParams p) {
  awaitPrevious();
  __shared__ ChoiceShared choice[kChooseThreads / 32];
  const int64_t rows = liveRows(p.rows, p.capacity), warps = kChooseThreads / 32, warp = threadIdx.x >> 5;
  LaneScores<kPerLane> mine(p);
  for (int64_t r = blockIdx.x * warps + warp; r < rows; r += gridDim.x * warps) chooseOfRow(p, r, mine, choice[warp]);
}

/// Block b plans experts from b · kExpertsOfBlock on.
__global__ void __launch_bounds__(kPlanThreads) planMany(const __grid_constant__ MoeRouteParams p) {
  awaitPrevious();
  __shared__ PlanShared shared;
  const int first = static_cast<int>(blockIdx.x) * kExpertsOfBlock, left = static_cast<int>(p.experts) - first;
  ExpertPlan<kPlanThreads>(p, liveRows(p.rows, p.capacity), shared).make(first, min(left, kExpertsOfBlock));
}

/// Whether one block can plan all experts at this capacity, and should.
bool fewRows(const MoeRouteParams& p) {
  return p.capacity <= kFewRows && inOnePass(p);
}

/// If there is to be a plan.
void launchPlan(const CudaContext& context, const MoeRouteParams& p) {
  if (p.expertStart) launch(context, planMany, static_cast<unsigned>(ceilDiv(p.experts, kExpertsOfBlock)), kPlanThreads, 0, p);
}

/// Choice and plan, from the logits. One block for all rows only where it plans them too.
template <int kPerLane>
void launchChoice(const CudaContext& context, const MoeRouteParams& p) {
  if (p.expertStart && fewRows(p)) {
    launch(context, chooseFew<kPerLane>, 1, kFewThreads, 0, p);
    return;
  }
  launch(context, chooseMany<kPerLane>, persistentGrid(context, ceilDiv(p.capacity, kChooseThreads / 32), 8), kChooseThreads, 0, p);
  launchPlan(context, p);
}

template <class X, class W, bool kWhole>
void launchRoute(const CudaContext& context, const MoeRouteParams& p) {
  const int64_t all = p.classifier.rows;
  if (fewRows(p) && all <= kTinyOutputs && p.capacity * all * p.classifier.columns <= kTinyProducts) {
    launch(context, routeFew<X, W, kWhole>, 1, kFewThreads, 0, p);
    return;
  }
  if (logitsOnTensorCores(context, p)) launchTensorLogits(context, p);
  else launchLogits<X, W, kWhole>(context, p);
  if (choosesByTeams(context, p)) {
    if (!launchTeamChoice(context, p)) launchPlan(context, p);
  } else if (all <= kTinyOutputs) launchChoice<kTinyPerLane>(context, p);
  else if (all <= 384) launchChoice<12>(context, p);
  else if (all <= 768) launchChoice<24>(context, p);
  else launchChoice<0>(context, p);
}

template <class X, class W>
void launchRoute(const CudaContext& context, const MoeRouteParams& p) {
  const int64_t hidden = p.classifier.columns;
  const bool whole = hidden % kOctet == 0 && rowsAligned(static_cast<const X*>(p.h.data), hidden) && rowsAligned(static_cast<const W*>(p.classifier.data), hidden);
  if (whole) launchRoute<X, W, true>(context, p);
  else launchRoute<X, W, false>(context, p);
}

}  // namespace

void moe_route(const void* params, const CudaContext& context) {
  const auto& p = *static_cast<const MoeRouteParams*>(params);
  if (p.capacity == 0) return launchPlan(context, p);  // of no rows
  LONGCAT_ACTIVATION(p.activation, X, {
    if (p.classifier.dtype == DType::bf16) launchRoute<X, Bf16>(context, p);
    else launchRoute<X, float>(context, p);
  });
}

}  // namespace longcat::cuda
