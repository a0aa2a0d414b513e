// ep_combine on a GPU: one launch. Each thread sends octets of sums, of rows that came and this rank's experts, straight into their home ranks' windows, and
// adds up octets of own rows at home: its own experts' share, which no other needs to see, then what the other ranks send (arrivals.cuh). Through NCCL
// it is two launches, the first of which writes to the outbox, and NCCL is between them.
//
// A thread sends ahead of what it waits for, so that sums are on their way while others are added up. No thread waits for ever: of all waiting ones,
// of whatever rank, take one whose row is the first. Who is to send it that row's sum has not got there, so it waits itself, at home, for a row that is
// before this one, since it sends ahead; but this one is the first. That takes blocks which are all there, and the grid has no more than fit.
//
// The order of sums: experts in ascending id, the first one's product, then one fused step each; rounded to an activation, the own share too; ranks
// ascending, added; the identity term last, one fused step. Each in float32.
#include "ops/ep_combine/params.h"

#include "cuda/dependent.cuh"
#include "cuda/exchange.cuh"
#include "cuda/launch.cuh"
#include "cuda/outbox.h"
#include "cuda/vectors.cuh"
#include "ops/ep_combine/arrivals.cuh"

namespace longcat::cuda {
namespace {

constexpr int kFewestThreads = 128;
template <class A, bool kWhole>
constexpr int kMostThreads = sizeof(A) == 2 && kWhole ? 384 : 256;
constexpr int kBlocksAtOnce = 2;     // of a multiprocessor
constexpr int kSlotsAtOnce = 4;      // experts' products of an octet under way at once
constexpr int kRanksAtOnce = 2;      // ranks' sums likewise
constexpr uint32_t kStepsAhead = 2;  // of sending

/// A sum so far. `any`: something is in it.
struct Total {
  float v[kOctet] = {};
  bool any = false;

  __device__ __forceinline__ void addProduct(float weight, const float (&part)[kOctet]) {
#pragma unroll
    for (int i = 0; i < kOctet; ++i) v[i] = any ? fmaf(weight, part[i], v[i]) : weight * part[i];
    any = true;
  }
  __device__ __forceinline__ void add(const float (&part)[kOctet]) {
#pragma unroll
    for (int i = 0; i < kOctet; ++i) v[i] = any ? v[i] + part[i] : part[i];
    any = true;
  }
};

/// Which octet of which row.
struct Place {
  uint32_t row;
  int32_t k;
};
/// The n-th octet of rows of `ofRow` octets each.
__device__ __forceinline__ Place placeOf(uint32_t n, uint32_t ofRow) {
  const uint32_t row = n / ofRow;
  return {row, static_cast<int32_t>((n - row * ofRow) * kOctet)};
}

/// Octet k of what this rank's experts make of the j-th row from `source`. False: a plan of nothing.
template <class A, bool kWhole>
__device__ __forceinline__ bool sumExperts(const EpCombineParams& p, int64_t source, uint32_t j, int32_t k, StoredOctet<A>& sum) {
  const int32_t* plan = p.slotPlan + (source * p.capacity + j) * p.slots;
  const float* weights = reinterpret_cast<const float*>(p.window + p.layout.weights) + (source * p.windowTokens + j) * p.slots;
  Total total;
#pragma unroll 1
  for (int first = 0; first < static_cast<int>(p.slots); first += kSlotsAtOnce) {
    int32_t entry[kSlotsAtOnce];
    float weight[kSlotsAtOnce];
    StoredOctet<A> part[kSlotsAtOnce];
#pragma unroll
    for (int s = 0; s < kSlotsAtOnce; ++s) {
      entry[s] = first + s < static_cast<int>(p.slots) ? plan[first + s] : -1;
      weight[s] = first + s < static_cast<int>(p.slots) ? weights[first + s] : 0.0f;
    }
#pragma unroll
    for (int s = 0; s < kSlotsAtOnce; ++s) {
      if (entry[s] >= 0) part[s].template load<kWhole>(static_cast<const A*>(p.partial.data) + entry[s] * p.width + k, p.width - k);
    }
#pragma unroll
    for (int s = 0; s < kSlotsAtOnce; ++s) {
      if (entry[s] < 0) continue;
      float v[kOctet];
      part[s].widen(v);
      total.addProduct(weight[s], v);
    }
    if (entry[kSlotsAtOnce - 1] < 0) break;  // none follow
  }
  sum.round(total.v);
  return total.any;
}

/// The n-th octet of sums to others: row by row, of each to every other rank from which there is one, beginning with the rank behind this.
template <class A, bool kWhole>
__device__ __forceinline__ void sendOctet(const EpCombineParams& p, const uint32_t* rowsFrom, uint32_t n, uint32_t ofRow) {
  const auto others = static_cast<uint32_t>(p.ranks - 1);
  const auto [i, k] = placeOf(n, ofRow);
  const uint32_t j = i / others;
  const int64_t behind = p.rank + 1 + (i - j * others), home = behind < p.ranks ? behind : behind - p.ranks;
  StoredOctet<A> sum;
  if (j >= rowsFrom[home] || !sumExperts<A, kWhole>(p, home, j, k, sum)) return;
  const Target to = targetOf(p, home);
  A* const sums = reinterpret_cast<A*>(to.window + p.layout.sums) + (to.source * p.windowTokens + j) * p.width;
  sum.template send<kWhole>(sums + k, p.width - k);
}

/// Octet k of own row t. False: given up.
template <class A, bool kWhole>
__device__ __forceinline__ bool addOctet(const EpCombineParams& p, Place at) {
  const auto [t, k] = at;
  A* const sums = reinterpret_cast<A*>(p.window + p.layout.sums) + k;
  const int32_t* slots = p.sendSlot + t * p.ranks;
  const int64_t left = p.width - k;
  StoredOctet<A> ownSum;
  const bool ownHas = slots[p.rank] >= 0 && sumExperts<A, kWhole>(p, p.rank, slots[p.rank], k, ownSum);

  const float identity = p.identityWeight[t];
  StoredOctet<A> own;
  if (identity != 0.0f) own.template load<kWhole>(static_cast<const A*>(p.h.data) + t * p.width + k, left);

  Total total;
#pragma unroll 1
  for (int first = 0; first < static_cast<int>(p.ranks); first += kRanksAtOnce) {
    A* place[kRanksAtOnce];
    StoredOctet<A> part[kRanksAtOnce];
#pragma unroll
    for (int e = 0; e < kRanksAtOnce; ++e) {
      const int rank = first + e;
      const int32_t slot = rank < static_cast<int>(p.ranks) && rank != static_cast<int>(p.rank) ? slots[rank] : -1;
      place[e] = slot < 0 ? nullptr : sums + (rank * p.windowTokens + slot) * p.width;
    }
    for (Patience patience(p.control);;) {
      int missing = -1;
#pragma unroll
      for (int e = 0; e < kRanksAtOnce; ++e) {
        if (place[e] && !part[e].template take<kWhole>(place[e], left)) missing = e;
      }
      if (missing < 0) break;
      if (!patience.waitFor(first + missing)) return false;
    }
#pragma unroll
    for (int e = 0; e < kRanksAtOnce; ++e) {
      float v[kOctet];
      if (place[e]) {
        if (p.nccl.outbox == nullptr) StoredOctet<A>::template clear<kWhole>(place[e], left);
        part[e].widen(v);
        total.add(v);
      } else if (first + e == static_cast<int>(p.rank) && ownHas) {
        ownSum.widen(v);
        total.add(v);
      }
    }
  }
  if (identity != 0.0f) {
    float v[kOctet];
    own.widen(v);
    total.addProduct(identity, v);
  }
  storeOctet<kWhole>(static_cast<A*>(p.out.data) + t * p.width + k, left, total.v);
  return true;
}

// ---- Meeting

/// How many blocks of this launch have read how many rows there are from each rank: in the own window's own line, behind the flag.
__device__ __forceinline__ uint32_t* blocksReady(const EpCombineParams& p) { return senderFlag(p.window, sumsFlagOffset(p.rank), 1); }

/// Ends the exchange. A rank that has no rows here waits for no sums, and would go on to its next word while this one may still be at the last. So
/// each rank lets the others know when all its blocks have read theirs, and waits to hear it from all. One block calls, the others are `blocks`.
__device__ void meet(const EpCombineParams& p, uint32_t blocks) {
  const uint32_t exchange = exchangeOf(p.epoch);
  if (threadIdx.x == 0) {
    while (loadAcquire(blocksReady(p)) != blocks) {
    }
    *blocksReady(p) = 0;
  }
  raiseFlags(p, sumsFlagOffset, 0, exchange);
  if (threadIdx.x < 32 && awaitSenders(p.window, sumsFlagOffset(0), p.ranks, 1, exchange, p.control, true) && threadIdx.x == 0) ++*p.epoch;
}

// ---- The kernel

/// What a launch does of it.
enum class Part { sends, adds, all };

/// The last block meets the other ranks, where all is done in one launch; the others send and add.
template <class A, bool kWhole, Part kPart>
__global__ void __launch_bounds__(kMostThreads<A, kWhole>, kBlocksAtOnce) combine(const __grid_constant__ EpCombineParams p) {
  __shared__ uint32_t rowsFrom[kMaxRanks];
  awaitPrevious();
  const uint32_t blocks = gridDim.x - (kPart == Part::all);
  if (blockIdx.x == blocks) {
    meet(p, blocks);
    letNextBegin();
    return;
  }
  const uint32_t thread = blockIdx.x * blockDim.x + threadIdx.x, threads = blocks * blockDim.x;
  const uint32_t ofRow = static_cast<uint32_t>((p.width + kOctet - 1) / kOctet), others = static_cast<uint32_t>(p.ranks - 1);
  uint32_t sends = 0, adds = 0;  // octets
  if (kPart != Part::adds) {
    for (uint32_t s = threadIdx.x; s < p.ranks; s += blockDim.x) {
      rowsFrom[s] = clampCount(reinterpret_cast<const WindowFlag*>(p.window + rowsFlagOffset(s))->count, p.capacity);
    }
    __syncthreads();
    if (kPart == Part::all && threadIdx.x == 0) atomicAdd(blocksReady(p), 1);
    for (int64_t s = 0; s < p.ranks; ++s) sends = max(sends, s == p.rank ? 0 : rowsFrom[s]);
    sends *= others * ofRow;
  }
  if (kPart != Part::sends) adds = static_cast<uint32_t>(liveRows(p.rows, p.capacity)) * ofRow;

  // All threads take a step: `others` of sending are one of adding. They send a row further than the one that is waited for, and more.
  uint32_t send = thread;
  for (uint32_t add = thread; send < sends || add < adds; add += threads) {
    const uint32_t until = kPart == Part::sends ? sends : (add - thread + (1 + kStepsAhead) * threads + ofRow) * others;
#pragma unroll 1
    for (; send < sends && send < until; send += threads) sendOctet<A, kWhole>(p, rowsFrom, send, ofRow);
    if (add < adds && !addOctet<A, kWhole>(p, placeOf(add, ofRow))) return;
  }
  letNextBegin();
  if (kPart == Part::adds && thread == 0) ++*p.epoch;  // NCCL has brought all; nobody meets
}

template <class A, bool kWhole>
void launchCombine(const CudaContext& context, const EpCombineParams& p) {
  const int64_t octets = p.capacity * std::max<int64_t>(1, p.ranks - 1) * ceilDiv(p.width, kOctet);
  const int64_t threads = std::clamp<int64_t>(ceilDiv(ceilDiv(octets, context.multiprocessors), 32) * 32, kFewestThreads, kMostThreads<A, kWhole>);
  LaunchShape shape{dim3(static_cast<unsigned>(persistentGrid(context, ceilDiv(octets, threads), kBlocksAtOnce))), static_cast<int>(threads)};
  if (p.nccl.outbox == nullptr) {
    shape.grid.x = static_cast<unsigned>(std::min<int64_t>(shape.grid.x, kBlocksAtOnce * context.multiprocessors - 1)) + 1;  // one meets the other ranks
    launch(context, combine<A, kWhole, Part::all>, shape, p);
    return;
  }
  launch(context, combine<A, kWhole, Part::sends>, shape, p);
  bringSums(p, context);
  launch(context, combine<A, kWhole, Part::adds>, shape, p);
}

}  // namespace

void ep_combine(const void* params, const CudaContext& context) {
  const auto& p = *static_cast<const EpCombineParams*>(params);
  LONGCAT_ACTIVATION(p.activation, A, {
    const bool whole = p.width % kOctet == 0 && rowsAligned(p.partial.as<A>(), p.width) && rowsAligned(p.h.as<A>(), p.width) && rowsAligned(p.out.as<A>(), p.width);
    if (whole) launchCombine<A, true>(context, p);
    else launchCombine<A, false>(context, p);
  });
}

}  // namespace longcat::cuda
