// Products of few rows on Hopper: weights pass once from memory through the tensor cores, in the order of sums of gemm_formats.cuh.
//
// A cluster has one block for each lane of k. Block c multiplies lane c of an item, 2 × 64 weight rows × up to 96 rows of activations, and
// sends the sums to the block of the cluster that owns them, which adds the lanes in ascending order and stores the results. So the rows'
// numbers in a lane of k are few enough to stay in shared memory while weights stream past them, and a matrix of few outputs still
// occupies the whole card.
//
// In a block, two warpgroups multiply, each with 64 weight rows; the warps of a third one copy weights (one for each of them, through a
// ring of its own that never runs dry at the end of an item), add lanes and fetch the next rows. Weights are wgmma's A, from registers: FP8
// codes become bfloat16 on the way there. Activations are its B.
#pragma once

#include "cuda/dependent.cuh"
#include "cuda/gemm_work.cuh"
#include "cuda/hopper/exchange.cuh"
#include "cuda/hopper/gemm_few_formats.cuh"
#include "cuda/launch.cuh"

namespace longcat::cuda::few {

// ---- items -----------------------------------------------------------------------------------------------------------------

/// Outputs of an item: both warpgroups' rows, or those of gate and up.
__host__ __device__ inline int outputsOfItem(const GemmProblem& p) { return p.epilogue == Epilogue::swiglu ? kTile : 2 * kTile; }

/// An item and how it is found: row tiles ascending, in a row tile the outputs. A cluster's items follow each other.
class Items {
 public:
  /// Every thread of the block calls. What other kernels of the stream write is read only where the product is grouped or large.
  __device__ Items(const GemmProblem& p, int columns, int* prefix) : p_(p), prefix_(prefix), columns_(columns) {
    blocks_ = static_cast<int>((outputsOf(p) + outputsOfItem(p) - 1) / outputsOfItem(p));
    if (p.groupStart) {
      if (!p.groupsSettled) awaitPrevious();
      countRowTiles(p, columns, prefix);
      tiles_ = prefix[p.groups];
    } else if (p.capacity <= columns) {
      tiles_ = 1;  // whether there is a live row or not: weights can be fetched before that is known
    } else {
      awaitPrevious();
      tiles_ = (live() + columns - 1) / columns;
    }
    const int64_t all = static_cast<int64_t>(tiles_) * blocks_, cluster = blockIdx.x / clusterSize(), clusters = gridDim.x / clusterSize();
    begin_ = static_cast<int>(all * cluster / clusters);
    end_ = static_cast<int>(all * (cluster + 1) / clusters);
  }

  __device__ int begin() const { return begin_; }
  __device__ int end() const { return end_; }
  /// The first item of the next row tile.
  __device__ __forceinline__ int nextTile() const { return (tile_ + 1) * blocks_; }

  __device__ __forceinline__ void moveTo(int item) {
    const int tile = item / blocks_;
    output = (item - tile * blocks_) * outputsOfItem(p_);
    if (tile == tile_) return;
    tile_ = tile;
    group = p_.groupStart ? groupOfRowTile(prefix_, static_cast<int>(p_.groups), tile) : 0;
    row = (p_.groupStart ? p_.groupStart[group] : 0) + (tile - (p_.groupStart ? prefix_[group] : 0)) * columns_;
  }
  /// The item's live rows. Only after awaitPrevious().
  __device__ __forceinline__ int rows() const {
    const int left = (p_.groupStart ? p_.groupStart[group + 1] : live()) - row;
    return left < columns_ ? left : columns_;
  }

  int group = 0, row = 0, output = 0;

 private:
  __device__ int live() const { return static_cast<int>(p_.liveRows ? clampCount(*p_.liveRows, p_.capacity) : p_.capacity); }

  const GemmProblem& p_;
  const int* prefix_;
  int columns_, blocks_, tiles_, begin_, end_, tile_ = -1;
};

/// What a block has of k.
struct Lane {
  int begin, numbers, stages;  // the first two in numbers
};
template <class Format>
__device__ __forceinline__ Lane laneOf(const GemmProblem& p, int lane, int lanes) {
  const int steps = static_cast<int>(depthOf(p) / Format::kLaneStep), first = laneBegin(steps, lane, lanes), end = laneBegin(steps, lane + 1, lanes);
  const int numbers = (end - first) * Format::kLaneStep;
  return {first * Format::kLaneStep, numbers, (numbers + Format::kNumbers - 1) / Format::kNumbers};
}

// ---- the warp that copies a warpgroup's weights ------------------------------------------------------------------------

/// 16 bytes from global to shared memory. No policy for the L2 cache: the card calls cp.async with one illegal.
__device__ __forceinline__ void copyWeights(void* shared, const void* global) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;\n" ::"r"(sharedAddress(shared)), "l"(global) : "memory");
}
__device__ __forceinline__ void copyScale(void* shared, const void* global) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;\n" ::"r"(sharedAddress(shared)), "l"(global) : "memory");
}

template <class Format>
__device__ void copyAll(const GemmProblem& p, const Plan& plan, const Shared& shared, Items items, const Lane& part, int which) {
  const int thread = threadIdx.x & 31, piece = thread & 7, firstRow = thread >> 3;
  const int64_t k = depthOf(p), rowBytes = k * Format::kWeightBytes;
  const int outputs = static_cast<int>(outputsOf(p));
  const bool dual = p.epilogue == Epilogue::swiglu;
  Place place;
  for (int item = items.begin(); item < items.end(); ++item) {
    items.moveTo(item);
    const Matrix matrix = matrixOf(p, items.group, dual && which == 1);
    const int output = items.output + (dual ? 0 : which * kTile), left = outputs - output;
    const int rows = left < kTile ? left : kTile;  // none where it is not positive
    const unsigned char* from = matrix.data + (output + firstRow) * rowBytes + part.begin * Format::kWeightBytes + piece * 16;
    const float* scale = Format::kScaled ? matrix.scale + static_cast<int64_t>(output / static_cast<int>(kFp8Block)) * (k / kFp8Block) + part.begin / kFp8Block : nullptr;
    for (int s = 0; s < part.stages; ++s) {
      wait(shared.empty(which, place.at), place.phase ^ 1);
      unsigned char* to = shared.stage(which, place.at);
      const bool there = Format::kLaneStep == Format::kNumbers || s * Format::kNumbers + piece * 16 / Format::kWeightBytes < part.numbers;
      if (there) {
        const unsigned char* source = from;
#pragma unroll 8
        for (int row = firstRow; row < rows; row += 4, source += 4 * rowBytes) copyWeights(to + swizzled128(row, piece), source);
      }
      if (Format::kScaled && thread == 0 && rows > 0) copyScale(shared.scale(which, place.at), scale + s);
      arriveAfterCopies(shared.full(which, place.at));
      from += 128;
      place.next(plan.stages);
    }
  }
  waitCopies<0>();
}

// ---- activations -----------------------------------------------------------------------------------------------------------

/// Columns of wgmma for so many rows.
__host__ __device__ constexpr int columnsFor(int rows) { return rows <= 8 ? 8 : rows <= 16 ? 16 : rows <= 32 ? 32 : rows <= 64 ? 64 : kMostColumns; }

/// Rows of activations of `numbers` of k from `begin` on, to the panels, by kFetchers threads of the block that begin at a multiple of that.
template <class Format, int kAtOnce, int kFetchers>
__device__ void keepRows(const GemmProblem& p, int firstRow, int rows, int begin, int numbers, int columns, const Panels& panels) {
  const int groups = numbers / 16, all = rows * groups, thread = threadIdx.x % kFetchers;
  for (int first = 0; first < all; first += kAtOnce * kFetchers) {
    uint4 v[kAtOnce][2] = {};
#pragma unroll
    for (int u = 0; u < kAtOnce; ++u) {
      const int i = first + u * kFetchers + thread, row = i / groups;
      if (i < all) {
        const unsigned char* from = static_cast<const unsigned char*>(p.x.data) + (sourceRow(p, firstRow + row) * p.xStride + begin + (i - row * groups) * 16) * 2;
        v[u][0] = *reinterpret_cast<const uint4*>(from), v[u][1] = *reinterpret_cast<const uint4*>(from + 16);
      }
    }
#pragma unroll
    for (int u = 0; u < kAtOnce; ++u) {
      const int i = first + u * kFetchers + thread, row = i / groups;
      Format::keep(v[u], i < all, panels.data, panels.rowScales, columns, row, i - row * groups);
    }
  }
}

/// Whether a lane of so many rows takes no more than half of the panels.
template <class Format>
__device__ __forceinline__ bool fitsHalf(const Plan& plan, const Lane& part, int rows) {
  return part.stages * Format::kPanels * columnsFor(rows) * 128 <= plan.panelBytes / 2;
}

// ---- the warpgroups that multiply ----------------------------------------------------------------------------------------

/// What is in the panels.
struct Kept {
  int row = -1, stage = 0;
};

struct Multiplier {
  Ring ring;
  Place buffer;
  PanelTurns turns = {};
  Kept kept = {};
};

/// Fragments (of 8 rows of activations) that a thread sends at once.
__host__ __device__ constexpr int fragmentsAtOnce(int columns) { return columns > 8 ? 2 : 1; }

/// Sends a warpgroup's sums to their owners: octet u of its 64 outputs to block u · lanes / 8. A block without others, whose launch has no
/// clusters, keeps them. And says in its own block that it is done with the item.
template <int N>
__device__ __forceinline__ void sendSums(const float (&sum)[N / 2], const Shared& shared, int buffer, int lane, int lanes, int which) {
  constexpr int kFragments = fragmentsAtOnce(N);
  const int thread = threadIdx.x & 31, warp = (threadIdx.x >> 5) & 3, owned = 8 / lanes;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int octet = 2 * warp + half, owner = octet / owned;
    unsigned char* place = shared.buffer(buffer) + ((lane * 2 + which) * owned + octet % owned) * N * 32 + thread * 8 * kFragments;
    const auto each = [&](const auto& store) {
#pragma unroll
      for (int j = 0; j < N / 8; j += kFragments) {
        if constexpr (kFragments == 2) store(j * 256, float4{sum[4 * j + 2 * half], sum[4 * j + 2 * half + 1], sum[4 * j + 4 + 2 * half], sum[4 * j + 5 + 2 * half]});
        else store(j * 256, float2{sum[4 * j + 2 * half], sum[4 * j + 2 * half + 1]});
      }
    };
    if (lanes > 1) {
      const uint32_t to = addressIn(place, owner), barrier = addressIn(shared.sumsFull(buffer), owner);
      each([&](int at, const auto& values) { storeAt(to + at, values, barrier); });
    } else {
      each([&](int at, const auto& values) { *reinterpret_cast<std::remove_cvref_t<decltype(values)>*>(place + at) = values; });
    }
  }
  __syncwarp();
  if (thread == 0) arrive(shared.sumsFull(buffer));
}

template <class Format, int N>
__device__ __forceinline__ void multiplyItem(const GemmProblem& p, const Plan& plan, const Shared& shared, const Items& items, int rows, const Lane& part, int lane,
                                             int lanes, Multiplier& state) {
  if (state.kept.row != items.row) {
    state.turns.next(fitsHalf<Format>(plan, part, rows));
    if (state.turns.ahead) {
      state.turns.await(shared);
      state.kept = {items.row, 0};
    }
  }
  const Panels panels = state.turns.of(shared, plan);
  const int segment = panels.bytes / (Format::kPanels * N * 128);  // stages whose activations the panels take
  float sum[N / 2] = {};
  for (int first = 0; first < part.stages; first += segment) {
    const int end = first + segment < part.stages ? first + segment : part.stages;
    if (state.kept.row != items.row || state.kept.stage != first) {
      syncSome(kMultipliersMeet, kMultipliers);  // nobody multiplies what was there before
      const int left = part.numbers - first * Format::kNumbers, most = (end - first) * Format::kNumbers;
      keepRows<Format, N < 32 ? 2 : Format::kRowScales ? 4 : 8, kMultipliers>(p, items.row, rows, part.begin + first * Format::kNumbers, left < most ? left : most, N, panels);
      fenceAsyncProxy();
      syncSome(kMultipliersMeet, kMultipliers);
      state.kept = {items.row, first};
    }
    Format::template multiply<N>(sum, state.ring, end - first, rowsOfK(panels.data), panels.rowScales, part.numbers - first * Format::kNumbers);
  }
  waitAcross(shared.sumsFree(state.buffer.at), state.buffer.phase ^ 1);
  sendSums<N>(sum, shared, state.buffer.at, lane, lanes, state.ring.which);
  state.buffer.next(plan.buffers);
}

template <class Format, bool kNarrow>
__device__ void multiplyAll(const GemmProblem& p, const Plan& plan, const Shared& shared, Items items, const Lane& part, int lane, int lanes) {
  const int thread = threadIdx.x & 31, warp = (threadIdx.x >> 5) & 3;
  Multiplier state{Ring{shared, static_cast<int>(threadIdx.x >> 7), swizzled128(16 * warp + (thread & 15), thread >> 4)}};
  for (int item = items.begin(); item < items.end(); ++item) {
    items.moveTo(item);
    const int rows = items.rows();
    const auto multiply = [&]<int N>() { multiplyItem<Format, N>(p, plan, shared, items, rows, part, lane, lanes, state); };
    const int columns = columnsFor(rows);
    if (columns == 8) multiply.template operator()<8>();
    else if (kNarrow || columns == 16) multiply.template operator()<16>();
    else if constexpr (!kNarrow) {
      if (columns == 32) multiply.template operator()<32>();
      else if (columns == 64) multiply.template operator()<64>();
      else multiply.template operator()<kMostColumns>();
    }
  }
}

// ---- the warps that fetch activations ahead of time and add lanes ----------------------------------------------------------

/// The row tile behind this one, if PanelTurns has it fetched ahead. Its half of the panels is free: all items before this tile have been added, so
/// that this block's warps are done with them.
template <class Format>
__device__ __forceinline__ void fetchNextTile(const GemmProblem& p, const Plan& plan, const Shared& shared, Items items, int rows, const Lane& part, PanelTurns& turns) {
  turns.next(fitsHalf<Format>(plan, part, rows));
  const int next = items.nextTile();
  if (next >= items.end()) return;
  items.moveTo(next);
  const int nextRows = items.rows();
  PanelTurns ofNext = turns;
  ofNext.next(fitsHalf<Format>(plan, part, nextRows));
  if (!ofNext.ahead) return;
  keepRows<Format, Format::kRowScales ? 2 : 4, kAdders>(p, items.row, nextRows, part.begin, part.numbers, columnsFor(nextRows), ofNext.of(shared, plan));
  fenceAsyncProxy();
  arrive(shared.panelsFull(ofNext.half));
}

/// The results of the octets that this block owns: two rows of activations (or two and two) and one output (of each warpgroup) a thread at
/// a time.
template <bool kDual, int kFragments>
__device__ __forceinline__ void addLanes(const GemmProblem& p, const unsigned char* sums, const Items& items, int rows, int columns, int lane, int lanes) {
  struct alignas(8 * kFragments) Sums {
    float v[2 * kFragments];
  };
  const int owned = 8 / lanes, perOctet = columns / (8 * kFragments), ofWarpgroup = owned * columns * 32;
  const int outputs = static_cast<int>(outputsOf(p));
  for (int unit = threadIdx.x % kAdders; unit < owned * perOctet * 32; unit += kAdders) {
    const int thread = unit & 31, at = unit >> 5, octet = at / perOctet, fragment = (at - octet * perOctet) * kFragments;
    Sums total[2];
#pragma unroll
    for (int which = 0; which < 2; ++which) {
      const unsigned char* from = sums + which * ofWarpgroup + unit * sizeof(Sums);
      total[which] = *reinterpret_cast<const Sums*>(from);
#pragma unroll
      for (int c = 1; c < kMaxLanes; ++c) {
        if (c >= lanes) break;
        const Sums part = *reinterpret_cast<const Sums*>(from + c * 2 * ofWarpgroup);
#pragma unroll
        for (int i = 0; i < 2 * kFragments; ++i) total[which].v[i] += part.v[i];
      }
    }
    const int output = items.output + (lane * owned + octet) * 8 + (thread >> 2);
#pragma unroll
    for (int i = 0; i < 2 * kFragments; ++i) {
      const int row = 8 * (fragment + i / 2) + 2 * (thread & 3) + i % 2;
      if (row >= rows) continue;
      if constexpr (kDual) {
        if (output < outputs) storeResult<true>(p, items.row + row, output, total[0].v[i], total[1].v[i]);
      } else {
#pragma unroll
        for (int which = 0; which < 2; ++which) {
          if (output + which * kTile < outputs) storeResult<false>(p, items.row + row, output + which * kTile, total[which].v[i], 0);
        }
      }
    }
  }
}

template <class Format, bool kNarrow>
__device__ __forceinline__ void addAll(const GemmProblem& p, const Plan& plan, const Shared& shared, Items items, const Lane& part, int lane, int lanes) {
  const int thread = threadIdx.x % kAdders;
  Place buffer;
  PanelTurns turns;
  int row = -1;
  for (int item = items.begin(); item < items.end(); ++item) {
    items.moveTo(item);
    const int rows = items.rows(), columns = columnsFor(rows);
    if (!kNarrow && items.row != row) {  // a narrow kernel has one row tile
      fetchNextTile<Format>(p, plan, shared, items, rows, part, turns);
      row = items.row;
    }
    if (thread == 0) arriveExpecting(shared.sumsFull(buffer.at), lanes > 1 ? columns * kSumBytes : 0);
    waitAcross(shared.sumsFull(buffer.at), buffer.phase);
    const unsigned char* sums = shared.buffer(buffer.at);
    const bool dual = p.epilogue == Epilogue::swiglu, few = fragmentsAtOnce(columns) == 1;
    if (dual && few) addLanes<true, 1>(p, sums, items, rows, columns, lane, lanes);
    else if (dual) addLanes<true, 2>(p, sums, items, rows, columns, lane, lanes);
    else if (few) addLanes<false, 1>(p, sums, items, rows, columns, lane, lanes);
    else addLanes<false, 2>(p, sums, items, rows, columns, lane, lanes);
    syncSome(kAddersMeet, kAdders);
    if (thread < lanes) arriveAt(shared.sumsFree(buffer.at), thread);
    buffer.next(plan.buffers);
  }
}

// ---- the kernel -----------------------------------------------------------------------------------------------------------

/// A narrow kernel takes half a multiprocessor, registers as well, so that the next one's weights are on their way before this one's last sums.
template <class Format, bool kNarrow>
__global__ void __launch_bounds__(kThreads, kNarrow ? 2 : 1) gemmFew(const __grid_constant__ GemmProblem p, const __grid_constant__ Plan plan) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(1024) unsigned char memory[];
  const Shared shared(memory, plan);
  const int lane = static_cast<int>(clusterRank()), lanes = static_cast<int>(clusterSize()), warp = threadIdx.x >> 5;
  shared.initialise(lanes);
  arriveAtCluster();
  __syncthreads();
  const Items items(p, plan.columns, shared.prefix);
  const Lane part = laneOf<Format>(p, lane, lanes);
  if (warp < kMultipliers / 32) {
    if constexpr (!kNarrow) moreRegisters<200>();
    awaitThenLetNextBegin();
    waitForCluster();  // the others' barriers are there
    multiplyAll<Format, kNarrow>(p, plan, shared, items, part, lane, lanes);
  } else {
    if constexpr (!kNarrow) fewerRegisters<104>();
    if (warp < kMultipliers / 32 + 2) {
      copyAll<Format>(p, plan, shared, items, part, warp - kMultipliers / 32);
      waitForCluster();
    } else {
      awaitPrevious();
      waitForCluster();
      addAll<Format, kNarrow>(p, plan, shared, items, part, lane, lanes);
    }
  }
  syncCluster();  // nobody ends while others still send
#endif
}

/// Rows of activations that an item should take: all of them, or what most groups will have.
inline int columnsOf(const GemmProblem& p, int64_t rows) {
  if (!p.groupStart) return columnsFor(static_cast<int>(std::min<int64_t>(p.capacity, kMostColumns)));
  return rows <= 4 ? 32 : rows <= 64 ? 64 : kMostColumns;
}

inline int64_t sharedBytesOf(const GemmProblem& p, const Plan& plan) {
  return plan.panelBytes + 2 * plan.stages * kStageBytes + plan.buffers * plan.columns * kSumBytes + plan.rowScales * 4 + Shared::kRest + prefixBytes(p);
}
constexpr int64_t kMostPanel = 128 << 10, kPanelInPieces = 96 << 10;  // where a lane's activations fit, and where they are brought piece by piece

/// The most that a plan of two stages and one buffer takes.
inline int64_t mostSharedBytes(const GemmProblem& p) {
  return kMostPanel + 4 * kStageBytes + kMostColumns * kSumBytes + kMostPanel / 128 * 4 + Shared::kRest + prefixBytes(p);
}
/// How `room` bytes of shared memory are cut; too few stages where they are too little.
template <class Format>
Plan planOf(const GemmProblem& p, int64_t rows, int64_t room) {
  constexpr int64_t kStagesBeforeBuffers = 6;
  Plan plan;
  plan.columns = columnsOf(p, rows);
  const int64_t lane = ceilDiv(ceilDiv(depthOf(p), lanesOf(depthOf(p))), Format::kNumbers) * Format::kPanels * plan.columns * 128;
  plan.panelBytes = static_cast<int>(lane <= kMostPanel ? lane : kPanelInPieces);
  plan.rowScales = Format::kRowScales ? plan.panelBytes / 128 : 0;
  for (plan.buffers = kMostBuffers;; --plan.buffers) {
    plan.stages = 0;
    const int64_t stages = (room - sharedBytesOf(p, plan)) / (2 * kStageBytes);
    plan.stages = static_cast<int>(std::clamp<int64_t>(stages, 0, kMostStages));
    if (plan.buffers == 1 || stages >= kStagesBeforeBuffers) return plan;
  }
}

/// Launches, unless this card cannot: the number of groups, k and the card decide that, not the rows.
template <class Format>
bool launchFew(const CudaContext& context, const GemmProblem& p, int64_t rows) {
  if (mostSharedBytes(p) > context.sharedBytes) return false;
  constexpr int64_t kReserved = 1 << 10;  // of a multiprocessor's shared memory, for each block
  constexpr int kStagesOfNarrow = 3;
  Plan plan = planOf<Format>(p, rows, (context.sharedBytes + kReserved) / 2 - kReserved);
  const bool narrow = plan.columns <= 16 && plan.stages >= kStagesOfNarrow;
  if (!narrow) plan = planOf<Format>(p, rows, context.sharedBytes);
  const int lanes = lanesOf(depthOf(p));
  const int atOnce = clustersAtOnce(context, gemmFew<Format, false>, kThreads, lanes);  // a block a multiprocessor
  const int64_t clusters = std::min<int64_t>(mostItems(p, plan.columns, outputsOfItem(p)), atOnce);
  if (clusters == 0) return false;
  const LaunchShape shape{dim3(static_cast<unsigned>(clusters * lanes)), kThreads, static_cast<size_t>(sharedBytesOf(p, plan)), static_cast<unsigned>(lanes)};
  launch(context, narrow ? gemmFew<Format, true> : gemmFew<Format, false>, shape, p, plan);
  return true;
}

}  // namespace longcat::cuda::few
