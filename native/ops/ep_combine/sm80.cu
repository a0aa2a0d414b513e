// ep_combine on a GPU: each received row's sum over this rank's experts, straight into its home rank's window; flags; then each own row's sum over ranks.
// Few rows: one launch, whose blocks send, raise their flags, wait for all and then add up a share of the rows at home. Many rows: three launches, of which
// the first and the last use the whole card and only one block waits between them; through NCCL the first writes to the outbox, and NCCL is between them.
//
// The order of sums: experts in ascending id, the first one's product, then one fused step each; ranks ascending, added; the identity term last, one fused
// step. Each in float32.
#include "ops/ep_combine/params.h"

#include "cuda/dependent.cuh"
#include "cuda/exchange.cuh"
#include "cuda/launch.cuh"
#include "cuda/outbox.h"
#include "cuda/vectors.cuh"

namespace longcat::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kMeetThreads = 256;
constexpr int kRanksAtOnce = 4;  // ranks' sums under way at once

/// Experts' products of an octet under way at once.
template <class A>
constexpr int kSlotsAtOnce = sizeof(A) == 2 ? 8 : 4;

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

/// An octet as it lies in memory: half the registers of its numbers, where these are bfloat16.
template <class A>
struct StoredOctet {
  uint4 words[sizeof(A) * kOctet / sizeof(uint4)];

  template <bool kWhole>
  __device__ __forceinline__ void load(const A* from, int64_t n) {
    if constexpr (kWhole) {
#pragma unroll
      for (size_t i = 0; i < sizeof(words) / sizeof(uint4); ++i) words[i] = reinterpret_cast<const uint4*>(from)[i];
    } else {
      float v[kOctet];
      loadOctet<false>(from, n, v);
      storeOctet(reinterpret_cast<A*>(words), v);
    }
  }
  __device__ __forceinline__ void widen(float (&v)[kOctet]) const { loadOctet(reinterpret_cast<const A*>(words), v); }
};

/// Octets of `rows` rows, share by share: f(row, first number) for those of this thread of `threads`.
template <class F>
__device__ __forceinline__ void forOctets(int64_t rows, int64_t width, int64_t thread, int64_t threads, const F& f) {
  const int64_t ofRow = (width + kOctet - 1) / kOctet, all = rows * ofRow;
  for (int64_t i = thread; i < all; i += threads) {
    const int64_t row = static_cast<uint32_t>(i) / static_cast<uint32_t>(ofRow);
    f(row, (i - row * ofRow) * kOctet);
  }
}

/// Row `planned` of slot_plan, row `place` of the window: an octet of its experts' sum.
template <class A, bool kWhole>
__device__ __forceinline__ void sumExperts(const EpCombineParams& p, int64_t planned, int64_t place, int64_t k, float (&sum)[kOctet]) {
  constexpr int kAtOnce = kSlotsAtOnce<A>;
  const int32_t* plan = p.slotPlan + planned * p.slots;
  const float* weights = reinterpret_cast<const float*>(p.window + p.layout.weights) + place * p.slots;
  Total total;
  for (int64_t first = 0; first < p.slots; first += kAtOnce) {
    int32_t entry[kAtOnce];
    float weight[kAtOnce];
    StoredOctet<A> part[kAtOnce];
#pragma unroll
    for (int s = 0; s < kAtOnce; ++s) {
      entry[s] = first + s < p.slots ? plan[first + s] : -1;
      weight[s] = first + s < p.slots ? weights[first + s] : 0.0f;
    }
#pragma unroll
    for (int s = 0; s < kAtOnce; ++s) {
      if (entry[s] >= 0) part[s].template load<kWhole>(static_cast<const A*>(p.partial.data) + entry[s] * p.width + k, p.width - k);
    }
#pragma unroll
    for (int s = 0; s < kAtOnce; ++s) {
      if (entry[s] < 0) continue;
      float v[kOctet];
      part[s].widen(v);
      total.addProduct(weight[s], v);
    }
    if (entry[kAtOnce - 1] < 0) break;  // none follow
  }
#pragma unroll
  for (int i = 0; i < kOctet; ++i) sum[i] = total.v[i];
}

/// Sums of the rows that came, to where they came from: octets of this thread of `threads`.
template <class A, bool kWhole>
__device__ void sendSums(const EpCombineParams& p, int64_t thread, int64_t threads) {
  int64_t before = 0;  // octets of sources before this one; the threads go on where the last source's octets end
  const int64_t ofRow = (p.width + kOctet - 1) / kOctet;
  for (int64_t s = 0; s < p.ranks; ++s) {
    const int64_t rows = clampCount(reinterpret_cast<const WindowFlag*>(p.window + rowsFlagOffset(s))->count, p.capacity);
    const Target home = targetOf(p, s);
    A* const sums = reinterpret_cast<A*>(home.window + p.layout.sums) + home.source * p.windowTokens * p.width;
    const int64_t first = (thread - before % threads + threads) % threads;
    forOctets(rows, p.width, first, threads, [&](int64_t j, int64_t k) {
      float sum[kOctet];
      sumExperts<A, kWhole>(p, s * p.capacity + j, s * p.windowTokens + j, k, sum);
      storeOctet<kWhole>(sums + j * p.width + k, p.width - k, sum);
    });
    before += rows * ofRow;
  }
}

/// What all ranks made of the own rows: octets of this thread of `threads`.
template <class A, bool kWhole>
__device__ void sumRanks(const EpCombineParams& p, int64_t thread, int64_t threads) {
  const A* const sums = reinterpret_cast<const A*>(p.window + p.layout.sums);
  forOctets(liveRows(p.rows, p.capacity), p.width, thread, threads, [&](int64_t t, int64_t k) {
    const float identity = p.identityWeight[t];
    StoredOctet<A> own;
    if (identity != 0.0f) own.template load<kWhole>(static_cast<const A*>(p.h.data) + t * p.width + k, p.width - k);
    Total total;
    for (int64_t first = 0; first < p.ranks; first += kRanksAtOnce) {
      int32_t slot[kRanksAtOnce];
      StoredOctet<A> part[kRanksAtOnce];
#pragma unroll
      for (int e = 0; e < kRanksAtOnce; ++e) slot[e] = first + e < p.ranks ? p.sendSlot[t * p.ranks + first + e] : -1;
#pragma unroll
      for (int e = 0; e < kRanksAtOnce; ++e) {
        if (slot[e] >= 0) part[e].template load<kWhole>(sums + ((first + e) * p.windowTokens + slot[e]) * p.width + k, p.width - k);
      }
#pragma unroll
      for (int e = 0; e < kRanksAtOnce; ++e) {
        if (slot[e] < 0) continue;
        float v[kOctet];
        part[e].widen(v);
        total.add(v);
      }
    }
    if (identity != 0.0f) {
      float v[kOctet];
      own.widen(v);
      total.addProduct(identity, v);
    }
    storeOctet<kWhole>(static_cast<A*>(p.out.data) + t * p.width + k, p.width - k, total.v);
  });
}

/// Raises this sender's flags and waits for everybody's; the first sender ends the exchange: when the own flags are up, too, all own blocks have
/// read its number. False: given up. All threads of the block call.
__device__ __forceinline__ bool meet(const EpCombineParams& p, int sender, int senders, uint32_t exchange) {
  raiseFlags(p, sumsFlagOffset, sender, exchange);
  bool there = true;
  if (threadIdx.x < 32) there = awaitSenders(p.window, sumsFlagOffset(0), p.ranks, senders, exchange, p.control, sender == 0);
  there = __syncthreads_and(there);
  if (there && sender == 0 && threadIdx.x == 0) ++*p.epoch;
  return there;
}

__device__ __forceinline__ int64_t threadOfGrid() { return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; }
__device__ __forceinline__ int64_t threadsOfGrid() { return static_cast<int64_t>(gridDim.x) * blockDim.x; }

// ---- Few rows

template <class A, bool kWhole>
__global__ void __launch_bounds__(kThreads, 1) combineFew(const __grid_constant__ EpCombineParams p) {
  awaitPrevious();
  const uint32_t exchange = exchangeOf(p.epoch);
  sendSums<A, kWhole>(p, threadOfGrid(), threadsOfGrid());
  const bool there = meet(p, static_cast<int>(blockIdx.x), static_cast<int>(gridDim.x), exchange);
  letNextBegin();
  if (there) sumRanks<A, kWhole>(p, threadOfGrid(), threadsOfGrid());
}

// ---- Many rows

template <class A, bool kWhole>
__global__ void __launch_bounds__(kThreads, 1) sendMany(const __grid_constant__ EpCombineParams p) {
  awaitThenLetNextBegin();
  sendSums<A, kWhole>(p, threadOfGrid(), threadsOfGrid());
}

__global__ void __launch_bounds__(kMeetThreads) meetMany(const __grid_constant__ EpCombineParams p) {
  awaitPrevious();
  meet(p, 0, 1, exchangeOf(p.epoch));
  letNextBegin();
}

template <class A, bool kWhole>
__global__ void __launch_bounds__(kThreads, 1) sumMany(const __grid_constant__ EpCombineParams p) {
  awaitThenLetNextBegin();
  if (p.nccl.outbox != nullptr && threadOfGrid() == 0) ++*p.epoch;  // nobody has met, and all have come
  sumRanks<A, kWhole>(p, threadOfGrid(), threadsOfGrid());
}

/// Blocks of the one launch of few rows; 0: they are many. It depends on what all ranks have in common.
int sendersFor(const EpCombineParams& p) {
  constexpr int64_t kMostBytes = 4 << 20;       // that may come, of rows
  constexpr int64_t kBytesOfBlock = 24 << 10;   // at the least
  constexpr int kFewest = 4, kMost = 28;
  static_assert(kMost <= kMostSenders);
  const int64_t bytes = p.ranks * p.capacity * p.width * bytesOf(p.activation);
  return bytes > kMostBytes ? 0 : static_cast<int>(std::clamp<int64_t>(ceilDiv(bytes, kBytesOfBlock), kFewest, kMost));
}

template <class A, bool kWhole>
void launchCombine(const CudaContext& context, const EpCombineParams& p) {
  if (const int senders = sendersFor(p); senders > 0 && p.nccl.outbox == nullptr) {
    launch(context, combineFew<A, kWhole>, static_cast<unsigned>(senders), kThreads, 0, p);
    return;
  }
  const int64_t blocksOfRank = ceilDiv(p.capacity * ceilDiv(p.width, kOctet), kThreads);
  launch(context, sendMany<A, kWhole>, static_cast<unsigned>(persistentGrid(context, p.ranks * blocksOfRank)), kThreads, 0, p);
  if (p.nccl.outbox == nullptr) launch(context, meetMany, 1, kMeetThreads, 0, p);
  else bringSums(p, context);
  launch(context, sumMany<A, kWhole>, static_cast<unsigned>(persistentGrid(context, blocksOfRank, 2)), kThreads, 0, p);
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
