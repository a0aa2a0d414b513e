// ep_dispatch on a GPU: one launch of few blocks. The first block tells the other ranks which rows come, waits for their word and makes the plan, while
// the rows are on their way; the others carry the rows, each an equal share of their bytes, straight from h into the ranks' windows, and raise a flag
// each. With FP8 a second launch unpacks what came. On Hopper the copy engine carries rows that travel as they are (sm90/copied_rows.cuh).
//
// Through NCCL the rows go to the outbox, and the first block leaves it at the word; NCCL brings all to the windows, and a launch of one block plans what came.
#include "ops/ep_dispatch/params.h"

#include <type_traits>

#include "cuda/dependent.cuh"
#include "cuda/exchange.cuh"
#include "cuda/launch.cuh"
#include "cuda/outbox.h"
#include "ops/ep_dispatch/destinations.cuh"
#include "ops/ep_dispatch/payload.cuh"
#include "ops/ep_dispatch/plan.cuh"
#include "ops/ep_dispatch/received.cuh"
#include "ops/ep_dispatch/sm90/copied_rows.cuh"

namespace longcat::cuda {
namespace {

constexpr int kUnpackThreads = 256;

/// Blocks that carry rows. To other windows it depends on what all ranks have in common; to the outbox as many as the card has room for.
int carriersFor(const EpDispatchParams& p, const CudaContext& context) {
  constexpr int64_t kBytesOfBlock = 16 << 10;  // at the least
  constexpr int kFewest = 4, kMost = 16;       // 16 fill five sixths of NVLink
  static_assert(kMost <= kMostSenders);
  const int most = p.nccl.outbox == nullptr ? kMost : std::max(kFewest, context.multiprocessors - 1);
  const int64_t bytes = p.capacity * p.width * bytesOf(p.activation);
  return static_cast<int>(std::clamp<int64_t>(ceilDiv(bytes, kBytesOfBlock), kFewest, most));
}

// ---- Carriers

/// Share `block` of `blocks` of all rows' pieces.
template <class Rows>
__device__ void carryRows(const EpDispatchParams& p, int64_t rows, int block, int blocks, void* shared) {
  constexpr int64_t kStep = static_cast<int64_t>(Rows::kHeld) * kDispatchThreads, kGrain = 64;  // pieces: whole warps, whole blocks of FP8
  const int64_t ofRow = Rows::piecesOf(p), all = rows * ofRow;
  const int64_t share = (all + blocks * kGrain - 1) / (blocks * kGrain) * kGrain;
  const int64_t begin = block * share, end = begin + share < all ? begin + share : all;
  if (begin >= end) return;

  // Pieces at, at + kDispatchThreads, …: the next ones are read before these are stored.
  struct Hand {
    typename Rows::Piece held[Rows::kHeld];
    int row[Rows::kHeld], piece[Rows::kHeld];
  } hand;
  const auto load = [&](int64_t at) {
    Hand to;
#pragma unroll
    for (int i = 0; i < Rows::kHeld; ++i) {
      const auto n = static_cast<uint32_t>(at + i * kDispatchThreads + threadIdx.x);
      to.row[i] = static_cast<int>(n / static_cast<uint32_t>(ofRow)), to.piece[i] = static_cast<int>(n - to.row[i] * static_cast<uint32_t>(ofRow));
      to.held[i] = Rows::load(p, to.row[i], to.piece[i], n < end);
    }
    return to;
  };
  hand = load(begin);  // on its way while the block finds out where to

  Destinations to(p, shared);
  const int64_t first = begin / ofRow, last = (end - 1) / ofRow;
  const int64_t firstTile = last < kDispatchThreads ? 0 : first;
  to.skip(firstTile);
  int64_t at = begin;
  for (int64_t tile = firstTile; tile <= last; tile += kDispatchThreads) {
    to.look(tile, rows);
    const int64_t tileEnd = (tile + kDispatchThreads) * ofRow, until = tileEnd < end ? tileEnd : end;
    while (at < until) {
      const int64_t next = at + kStep < until ? at + kStep : until;
      const Hand following = load(next);
      for (int64_t r = 0; r < p.ranks; ++r) {
        const Target target = targetOf(p, r);
#pragma unroll
        for (int i = 0; i < Rows::kHeld; ++i) {
          if (at + i * kDispatchThreads + threadIdx.x >= until) continue;
          const int32_t place = to.placeOf(static_cast<int>(hand.row[i] - tile), r);
          if (place >= 0) Rows::store(p, target.window, target.source * p.windowTokens + place, hand.piece[i], hand.held[i]);
        }
      }
      hand = following, at = next;
    }
    __syncthreads();  // before the next look
  }
}

// ---- The first block: word of the rows, and the plan of those that come

/// The experts of row `row` at rank r, and their weights, as that rank numbers its experts: kVector slots at a time.
template <int kVector>
__device__ __forceinline__ void writeChoices(const EpDispatchParams& p, int64_t row, int64_t r, int64_t inPlace) {
  const int32_t* ids = p.ids + row * p.topK;
  const float* weights = p.weights + row * p.topK;
  const int64_t firstExpert = r * p.localExperts;
  int64_t k = 0;  // its first expert there
#pragma unroll 4
  for (int64_t i = 0; i < p.topK; ++i) k += ids[i] < firstExpert;
  const Target target = targetOf(p, r);
  const int64_t place = target.source * p.windowTokens + inPlace;
  auto* localIds = reinterpret_cast<int32_t*>(target.window + p.layout.ids) + place * p.slots;
  auto* localWeights = reinterpret_cast<float*>(target.window + p.layout.weights) + place * p.slots;
  for (int64_t slot = 0; slot < p.slots; slot += kVector) {
    int32_t id[kVector];
    float weight[kVector];
#pragma unroll
    for (int i = 0; i < kVector; ++i, ++k) {
      const int64_t local = k < p.topK ? ids[k] - firstExpert : p.localExperts;
      const bool there = local < p.localExperts;
      id[i] = there ? static_cast<int32_t>(local) : -1;
      weight[i] = there ? weights[k] : 0.0f;
    }
    if constexpr (kVector == 4) {
      *reinterpret_cast<int4*>(localIds + slot) = {id[0], id[1], id[2], id[3]};
      *reinterpret_cast<float4*>(localWeights + slot) = {weight[0], weight[1], weight[2], weight[3]};
    } else {
      localIds[slot] = id[0], localWeights[slot] = weight[0];
    }
  }
}

/// send_slot, each sent row's experts, and to every rank how many rows come.
__device__ void announceRows(const EpDispatchParams& p, int64_t rows, uint32_t exchange, void* shared) {
  Destinations to(p, shared);
  for (int64_t tile = 0; tile < rows; tile += kDispatchThreads) {
    to.look(tile, rows);
    const int64_t inTile = rows - tile < kDispatchThreads ? rows - tile : kDispatchThreads;
    for (int64_t i = threadIdx.x; i < inTile * p.ranks; i += kDispatchThreads) {
      const int64_t t = i / p.ranks, r = i - t * p.ranks;
      const int32_t place = to.placeOf(static_cast<int>(t), r);
      p.sendSlot[(tile + t) * p.ranks + r] = place;
      if (place < 0) continue;
      if (p.slots % 4 == 0) writeChoices<4>(p, tile + t, r, place);
      else writeChoices<1>(p, tile + t, r, place);
    }
    __syncthreads();  // before the next look, and before the flags
  }
  for (int64_t r = threadIdx.x; r < p.ranks; r += kDispatchThreads) {
    const Target target = targetOf(p, r);
    fenceSystem();
    storeSystem(reinterpret_cast<WindowFlag*>(target.window + rowsFlagOffset(target.source)), {exchange, to.count(r)});
  }
}

/// Until every rank has told how many rows it sends. One warp calls.
__device__ __forceinline__ bool awaitWord(const EpDispatchParams& p, uint32_t exchange) {
  const auto told = [&](int s) { return loadAcquire(reinterpret_cast<const WindowFlag*>(p.window + rowsFlagOffset(s))).epoch == exchange; };
  return awaitAll(static_cast<int>(p.ranks), told, [](int s) { return s; }, p.control, true);
}

// ---- Kernels

/// Shared memory: a block's Destinations; then the first one's numbers of rows by source and its ReceivedPlanShared, or a carrier's own.
__host__ __device__ constexpr size_t aligned16(size_t bytes) { return (bytes + 15) / 16 * 16; }

struct SharedPlaces {
  size_t own, plan, bytes;
};
SharedPlaces sharedPlaces(int64_t ranks, size_t ofCarrier) {
  SharedPlaces at{};
  at.own = aligned16(Destinations::sharedBytes(ranks));
  at.plan = at.own + aligned16(static_cast<size_t>(ranks + 1) * sizeof(int32_t));
  at.bytes = std::max(at.plan + sizeof(ReceivedPlanShared), at.own + ofCarrier);
  return at;
}

/// Waits until all ranks have told what comes, plans it, and waits until all `carriers` of each rank have brought it. All threads of a block call.
__device__ void planArrivals(const EpDispatchParams& p, const SharedPlaces& at, int carriers, uint32_t exchange, unsigned char* shared) {
  auto* firstRow = reinterpret_cast<int32_t*>(shared + at.own);
  const bool leads = threadIdx.x < 32;
  bool there = !leads || awaitWord(p, exchange);
  if (leads && there) numberSources(p.window, p.ranks, p.capacity, firstRow);
  there = __syncthreads_and(there);
  if (there) planReceived(p, firstRow, *reinterpret_cast<ReceivedPlanShared*>(shared + at.plan));
  there = there && (!leads || awaitSenders(p.window, rowsFlagOffset(0), p.ranks, carriers, exchange, p.control, true));
  if (!__syncthreads_and(there)) planNothing(p);
}

template <class Rows>
__global__ void __launch_bounds__(kDispatchThreads, 1) dispatchRows(const __grid_constant__ EpDispatchParams p, const __grid_constant__ SharedPlaces at) {
  extern __shared__ __align__(16) unsigned char shared[];
  awaitPrevious();
  const int64_t rows = liveRows(p.rows, p.capacity);
  const uint32_t exchange = exchangeOf(p.epoch);
  const int carriers = static_cast<int>(gridDim.x) - 1;
  if (blockIdx.x > 0) {
    const int carrier = static_cast<int>(blockIdx.x) - 1;
    if constexpr (std::is_same_v<Rows, CopiedRows>) CopiedRows::carry(p, rows, carrier, carriers, shared, shared + at.own);
    else carryRows<Rows>(p, rows, carrier, carriers, shared);
    if (p.nccl.outbox == nullptr) raiseFlags(p, rowsFlagOffset, carrier, exchange);
    return;
  }
  announceRows(p, rows, exchange, shared);
  if (p.nccl.outbox == nullptr) planArrivals(p, at, carriers, exchange, shared);
  letNextBegin();
}

/// The plan of what NCCL has brought, all of it by now: what the first block does otherwise.
__global__ void __launch_bounds__(kDispatchThreads, 1) planBrought(const __grid_constant__ EpDispatchParams p, const __grid_constant__ SharedPlaces at) {
  extern __shared__ __align__(16) unsigned char shared[];
  awaitPrevious();
  planArrivals(p, at, 0, exchangeOf(p.epoch), shared);
  letNextBegin();
}

/// What the codes that came stand for: octets, strided over the grid.
template <class A, bool kWhole>
__global__ void __launch_bounds__(kUnpackThreads) unpackRows(const __grid_constant__ EpDispatchParams p) {
  extern __shared__ int32_t firstRow[];
  awaitThenLetNextBegin();
  if (threadIdx.x < 32) numberSources(p.window, p.ranks, p.capacity, firstRow);
  __syncthreads();
  const int64_t ofRow = (p.width + kOctet - 1) / kOctet, all = firstRow[p.ranks] * ofRow;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kUnpackThreads + threadIdx.x; i < all; i += static_cast<int64_t>(gridDim.x) * kUnpackThreads) {
    const int64_t row = i / ofRow, k = (i - row * ofRow) * kOctet;
    const ReceivedRow r = receivedRow(firstRow, p.ranks, row);
    const int64_t place = r.source * p.windowTokens + r.j, left = p.width - k;
    const auto* codes = reinterpret_cast<const uint8_t*>(p.window + p.layout.rows) + place * p.width + k;
    const float scale = reinterpret_cast<const float*>(p.window + p.layout.scales)[place * scalesOf(p.width) + k / kFp8Block];
    uint2 octet = {0, 0};
    if constexpr (kWhole) {
      octet = *reinterpret_cast<const uint2*>(codes);
    } else {
#pragma unroll
      for (int n = 0; n < kOctet; ++n) {
        if (n < left) (n < 4 ? octet.x : octet.y) |= static_cast<uint32_t>(codes[n]) << (n % 4 * 8);
      }
    }
    float v[kOctet];
#pragma unroll
    for (int n = 0; n < kOctet; ++n) v[n] = floatOf(Fp8{static_cast<uint8_t>((n < 4 ? octet.x : octet.y) >> (n % 4 * 8))}) * scale;
    storeOctet<kWhole>(static_cast<A*>(p.received.data) + (r.source * p.receivedStride + r.j) * p.width + k, left, v);
  }
}

// ---- Launches

template <class Rows>
void launchDispatch(const CudaContext& context, const EpDispatchParams& p) {
  size_t ofCarrier = 0;
  if constexpr (std::is_same_v<Rows, CopiedRows>) ofCarrier = CopiedRows::kRingBytes;
  const SharedPlaces at = sharedPlaces(p.ranks, ofCarrier);
  const int carriers = carriersFor(p, context);
  launch(context, dispatchRows<Rows>, LaunchShape{dim3(static_cast<unsigned>(1 + carriers)), kDispatchThreads, at.bytes}, p, at);
  if (p.nccl.outbox == nullptr) return;
  bringRows(p, context);
  launch(context, planBrought, LaunchShape{dim3(1), kDispatchThreads, at.bytes}, p, at);
}

template <class A>
void launchPacked(const CudaContext& context, const EpDispatchParams& p) {
  const bool whole = p.width % PackedRows<A, true>::kNumbers == 0 && rowsAligned(p.h.as<A>(), p.width) && rowsAligned(p.received.as<A>(), p.width);
  if (whole) launchDispatch<PackedRows<A, true>>(context, p);
  else launchDispatch<PackedRows<A, false>>(context, p);
  const int64_t octets = p.ranks * p.capacity * ceilDiv(p.width, kOctet);
  const LaunchShape shape{dim3(static_cast<unsigned>(persistentGrid(context, ceilDiv(octets, kUnpackThreads), 8))), kUnpackThreads,
                          static_cast<size_t>(p.ranks + 1) * sizeof(int32_t)};
  launch(context, whole ? unpackRows<A, true> : unpackRows<A, false>, shape, p);
}

void launchPlain(const CudaContext& context, const EpDispatchParams& p) {
  const size_t bytes = static_cast<size_t>(p.width) * bytesOf(p.activation);
  const size_t alignment = bytes | reinterpret_cast<uintptr_t>(p.h.data);
  if (alignment % sizeof(uint4) == 0 && context.capability == 90 && p.nccl.outbox == nullptr) launchDispatch<CopiedRows>(context, p);
  else if (alignment % sizeof(uint4) == 0) launchDispatch<PlainRows<uint4>>(context, p);
  else if (alignment % sizeof(uint32_t) == 0) launchDispatch<PlainRows<uint32_t>>(context, p);
  else launchDispatch<PlainRows<uint16_t>>(context, p);
}

}  // namespace

void ep_dispatch(const void* params, const CudaContext& context) {
  const auto& p = *static_cast<const EpDispatchParams*>(params);
  if (p.fp8) LONGCAT_ACTIVATION(p.activation, A, { launchPacked<A>(context, p); });
  else launchPlain(context, p);
}

}  // namespace longcat::cuda
