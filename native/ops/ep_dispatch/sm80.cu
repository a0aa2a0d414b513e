// ep_dispatch on a GPU: one launch of few blocks. The first block tells the other ranks how many rows come, waits for their word and makes the plan, while
// the rows are on their way. The others carry the rows, each an equal share of their bytes, straight from h into the ranks' windows: first which experts
// they are for, on which the plan waits, then themselves, and raise a flag each. With FP8 a second launch unpacks what came.
//
// Through NCCL the rows go to the outbox, and the first block leaves it at the word; NCCL brings all to the windows, and a launch of one block plans what came.
#include "ops/ep_dispatch/params.h"

#include "cuda/arrivals.cuh"
#include "cuda/dependent.cuh"
#include "cuda/exchange.cuh"
#include "cuda/launch.cuh"
#include "cuda/outbox.h"
#include "ops/ep_dispatch/destinations.cuh"
#include "ops/ep_dispatch/payload.cuh"
#include "ops/ep_dispatch/plan.cuh"
#include "ops/ep_dispatch/received.cuh"

namespace longcat::cuda {
namespace {

constexpr int kUnpackThreads = 256;

/// Blocks that carry rows. To other windows it depends on what all ranks have in common; to the outbox as many as the card has room for.
int carriersFor(const EpDispatchParams& p, const CudaContext& context) {
  constexpr int64_t kBytesOfBlock = 16 << 10;  // at the least
  constexpr int64_t kFewBytes = 2 << 20;
  constexpr int kFewest = 4, kMost = 16;         // 16 fill five sixths of NVLink
  constexpr int kMostOfFew = 24, kMostFp8 = 28;  // few bytes are begun sooner by more; FP8's conversion takes longer than its way
  static_assert(kMostOfFew <= kMostSenders && kMostFp8 <= kMostSenders);
  const int64_t bytes = p.capacity * p.width * bytesOf(p.activation);
  const bool few = bytes <= kFewBytes;
  const int toWindows = p.fp8 ? (few ? kMost : kMostFp8) : few ? kMostOfFew : kMost;
  const int most = p.nccl.outbox == nullptr ? toWindows : std::max(kFewest, context.multiprocessors - 1);
  return static_cast<int>(std::clamp<int64_t>(ceilDiv(bytes, kBytesOfBlock), kFewest, most));
}

// ---- Carriers

/// Piece after piece of rows, kDispatchThreads further each time.
class Cursor {
 public:
  __device__ __forceinline__ Cursor(uint32_t n, uint32_t ofRow) : row(n / ofRow), piece(n - row * ofRow), ofRow_(ofRow), rows_(kDispatchThreads / ofRow), pieces_(kDispatchThreads - rows_ * ofRow) {}
  __device__ __forceinline__ void advance() {
    row += rows_, piece += pieces_;
    if (piece >= ofRow_) ++row, piece -= ofRow_;
  }
  uint32_t row, piece;

 private:
  uint32_t ofRow_, rows_, pieces_;
};

/// send_slot of rows [begin, end) of the tile that begins with row `tile`, and which experts of each rank they are for, as that numbers them.
__device__ __forceinline__ void sendChoices(const EpDispatchParams& p, const Destinations& to, uint32_t tile, uint32_t begin, uint32_t end) {
  const auto slots = static_cast<uint32_t>(p.slots), rows = end - begin;
  for (uint32_t i = threadIdx.x; i < static_cast<uint32_t>(p.ranks) * rows * slots; i += kDispatchThreads) {
    const uint32_t sent = i / slots, slot = i - sent * slots, r = sent / rows, row = begin + sent - r * rows;
    const int32_t inPlace = to.placeOf(static_cast<int>(row - tile), static_cast<int>(r));
    if (slot == 0) p.sendSlot[row * p.ranks + r] = inPlace;
    if (inPlace < 0) continue;
    const int32_t* ids = p.ids + row * p.topK;
    const auto firstExpert = static_cast<int32_t>(r * p.localExperts);
    int64_t k = slot;  // its slot-th expert there
#pragma unroll 4
    for (int64_t n = 0; n < p.topK; ++n) k += ids[n] < firstExpert;
    const int64_t local = k < p.topK ? ids[k] - firstExpert : p.localExperts;
    const bool there = local < p.localExperts;
    const Target target = to.target(static_cast<int>(r));
    const int64_t place = (target.source * p.windowTokens + inPlace) * p.slots + slot;
    storeArrival(reinterpret_cast<uint32_t*>(target.window + p.layout.ids) + place, static_cast<uint32_t>(arrivalOf(there ? static_cast<int32_t>(local) : -1)));
    reinterpret_cast<float*>(target.window + p.layout.weights)[place] = there ? p.weights[row * p.topK + k] : 0.0f;
  }
}

/// Share `block` of `blocks` of all rows' pieces, and the choices of rows that begin there. Few rows are a matter of how many instructions stand before
/// the first store: pieces that nobody of the block has are left out.
template <class Rows>
__device__ void carryRows(const EpDispatchParams& p, int block, int blocks, void* shared) {
  constexpr uint32_t kStep = static_cast<uint32_t>(Rows::kHeld) * kDispatchThreads, kGrain = 64;  // pieces: whole warps, whole blocks of FP8
  // Of few rows as many are shared out as there is room for: then all that a block reads first is on its way before it knows how many there are.
  const bool few = p.capacity <= kDispatchThreads;
  const auto rows = static_cast<uint32_t>(few ? p.capacity : liveRows(p.rows, p.capacity)), ofRow = static_cast<uint32_t>(Rows::piecesOf(p)), all = rows * ofRow;
  const uint32_t share = (all + blocks * kGrain - 1) / (blocks * kGrain) * kGrain, begin = block * share;
  uint32_t end = begin + share < all ? begin + share : all;
  if (begin >= end) return;

  typename Rows::Piece held[Rows::kHeld];
  const auto load = [&](uint32_t at) {
    Cursor from(at + threadIdx.x, ofRow);
#pragma unroll
    for (int i = 0; i < Rows::kHeld && at + i * kDispatchThreads < end; ++i, from.advance()) {
      const uint32_t n = at + i * kDispatchThreads + threadIdx.x;
      if (n < end) held[i] = Rows::load(p, n, from.row, from.piece);
    }
  };
  load(begin);  // on its way while the block finds out where to

  const int32_t live = *p.rows;
  Destinations to(p, shared);
  uint32_t tile = end <= kDispatchThreads * ofRow ? 0 : begin / ofRow;
  if (tile > 0) to.skip(tile);
  to.look(tile, live);
  end = min(end, static_cast<uint32_t>(min(max(live, 0), static_cast<int32_t>(p.capacity))) * ofRow);
  const auto send = [&](uint32_t at, uint32_t until, const typename Rows::Packed (&packed)[Rows::kHeld]) {
    const Cursor first(at + threadIdx.x, ofRow);
    for (int64_t n = 1; n <= p.ranks; ++n) {  // this one last
      const auto r = static_cast<int>(p.rank + n < p.ranks ? p.rank + n : p.rank + n - p.ranks);
      const Target target = to.target(r);
      int32_t place[Rows::kHeld];
      Cursor from = first;
#pragma unroll
      for (int i = 0; i < Rows::kHeld && at + i * kDispatchThreads < until; ++i, from.advance()) {
        place[i] = at + i * kDispatchThreads + threadIdx.x < until ? to.placeOf(static_cast<int>(from.row - tile), r) : -1;
      }
      from = first;
#pragma unroll
      for (int i = 0; i < Rows::kHeld && at + i * kDispatchThreads < until; ++i, from.advance()) {
        if (place[i] >= 0) Rows::store(p, target.window, target.source * p.windowTokens + place[i], from.piece, packed[i]);
      }
    }
  };
  for (uint32_t at = begin; at < end;) {
    const uint32_t until = min(end, (tile + kDispatchThreads) * ofRow);
    sendChoices(p, to, tile, (at + ofRow - 1) / ofRow, (until + ofRow - 1) / ofRow);
    while (at < until) {
      const uint32_t next = min(at + kStep, until);
      if constexpr (Rows::kPacks) {
        typename Rows::Packed packed[Rows::kHeld];
#pragma unroll
        for (int i = 0; i < Rows::kHeld && at + i * kDispatchThreads < until; ++i) packed[i] = Rows::pack(held[i]);
        if (next < end) load(next);  // on its way while these are stored
        send(at, until, packed);
      } else {
        send(at, until, held);
        if (next < end) load(next);
      }
      at = next;
    }
    if (at == end) break;
    tile += kDispatchThreads;
    __syncthreads();
    to.look(tile, live);
  }
}

// ---- The first block: word of the rows, and the plan of those that come

/// To every rank how many rows come. `exchange` is looked at behind a barrier.
__device__ __forceinline__ void announceRows(const EpDispatchParams& p, const uint32_t& exchange, void* shared) {
  const int32_t live = *p.rows;
  Destinations to(p, shared);
  if (p.capacity <= kDispatchThreads) to.look(0, live);
  else to.skip(clampCount(live, p.capacity));
  for (int r = static_cast<int>(threadIdx.x); r < p.ranks; r += kDispatchThreads) {
    const Target target = to.target(r);
    storeSystem(reinterpret_cast<WindowFlag*>(target.window + rowsFlagOffset(target.source)), {exchange, to.count(r)});
  }
}

/// Until every rank has told how many rows it sends; counts[s]: of rank s, to lane s mod 32. One warp calls.
__device__ __forceinline__ bool awaitWord(const EpDispatchParams& p, uint32_t exchange, int32_t* counts) {
  const auto told = [&](int s) {
    const WindowFlag word = loadAcquire(reinterpret_cast<const WindowFlag*>(p.window + rowsFlagOffset(s)));
    counts[s] = word.count;
    return word.epoch == exchange;
  };
  return awaitAll(static_cast<int>(p.ranks), told, [](int s) { return s; }, p.control, true);
}

// ---- Kernels

/// Shared memory: a block's Destinations; then the first one's numbers of rows by source, and its ReceivedPlanShared.
struct SharedPlaces {
  size_t firstRow, plan, bytes;
};
SharedPlaces sharedPlaces(int64_t ranks) {
  const auto aligned = [](size_t bytes) { return (bytes + 15) / 16 * 16; };
  SharedPlaces at{};
  at.firstRow = aligned(Destinations::sharedBytes(ranks));
  at.plan = at.firstRow + aligned(static_cast<size_t>(ranks + 1) * sizeof(int32_t));
  at.bytes = at.plan + sizeof(ReceivedPlanShared);
  return at;
}

/// Waits until all ranks have told what comes, plans it, and waits until all `carriers` of each rank have brought it. All threads of a block call.
__device__ void planArrivals(const EpDispatchParams& p, const SharedPlaces& at, int carriers, uint32_t exchange, unsigned char* shared) {
  auto* firstRow = reinterpret_cast<int32_t*>(shared + at.firstRow);
  const bool leads = threadIdx.x < 32;
  bool there = !leads || awaitWord(p, exchange, firstRow + 1);
  if (leads && there) numberSources(p.ranks, p.capacity, firstRow, [&](int s) { return firstRow[s + 1]; });
  there = __syncthreads_and(there) && planReceived(p, firstRow, *reinterpret_cast<ReceivedPlanShared*>(shared + at.plan));
  there = there && (!leads || awaitSenders(p.window, rowsFlagOffset(0), p.ranks, carriers, exchange, p.control, true));
  if (!__syncthreads_and(there)) planNothing(p);
}

template <class Rows>
__global__ void __launch_bounds__(kDispatchThreads, 1) dispatchRows(const __grid_constant__ EpDispatchParams p, const __grid_constant__ SharedPlaces at) {
  extern __shared__ __align__(16) unsigned char shared[];
  awaitPrevious();
  __shared__ uint32_t exchange;  // known behind a barrier: what all threads read themselves, they would wait for at once
  if (threadIdx.x == kDispatchThreads - 64) exchange = exchangeOf(p.epoch);
  const int carriers = static_cast<int>(gridDim.x) - 1;
  if (blockIdx.x > 0) {
    const int carrier = static_cast<int>(blockIdx.x) - 1;
    carryRows<Rows>(p, carrier, carriers, shared);
    __syncthreads();
    if (p.nccl.outbox == nullptr) raiseFlags(p, rowsFlagOffset, carrier, exchange);
    return;
  }
  announceRows(p, exchange, shared);
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
  const auto countOf = [&](int s) { return reinterpret_cast<const WindowFlag*>(p.window + rowsFlagOffset(s))->count; };
  if (threadIdx.x < 32) numberSources(p.ranks, p.capacity, firstRow, countOf);
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
  const SharedPlaces at = sharedPlaces(p.ranks);
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
  if (alignment % sizeof(uint4) == 0) launchDispatch<PlainRows<uint4>>(context, p);
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
