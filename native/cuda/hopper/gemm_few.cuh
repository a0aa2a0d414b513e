// Products of few rows on Hopper: weights pass once from memory through the tensor cores, in the order of sums of gemm_formats.cuh.
//
// A cluster has one block for each lane of k. Block c multiplies lane c of an item, 2 × 64 weight rows × up to 96 rows of activations, and
// sends the sums to the block of the cluster that owns them, which adds the lanes in ascending order and stores the results. So the rows'
// numbers in a lane of k are few enough to stay in shared memory while weights stream past them, and a matrix of few outputs still
// occupies the whole card.
//
// In a block, two warpgroups multiply, each with 64 weight rows; the warps of a third one copy weights (one for each of them, through a
// ring of its own that never runs dry at the end of an item) and add lanes. Weights are wgmma's A, from registers: FP8 codes become
// bfloat16 on the way there. Activations are its B.
#pragma once

#include <atomic>

#include "cuda/dependent.cuh"
#include "cuda/gemm_formats.cuh"
#include "cuda/gemm_work.cuh"
#include "cuda/hopper/copy.cuh"
#include "cuda/hopper/exchange.cuh"
#include "cuda/hopper/wgmma.cuh"
#include "cuda/launch.cuh"

namespace longcat::cuda::few {

constexpr int kTile = 64;                     // weight rows of a warpgroup
constexpr int kMultipliers = 256, kAdders = 64, kThreads = 384;
constexpr int kStageBytes = kTile * 128;      // 128 bytes of each weight row
constexpr int kSumBytes = 2 * kTile * 4;     // of both warpgroups' sums, for a row of activations
constexpr int kMostColumns = 96;              // rows of activations of an item
constexpr int kMostStages = 12, kMostBuffers = 2;
constexpr int kMultipliersMeet = 1, kAddersMeet = 2;  // barriers by number

/// How a launch cuts its shared memory.
struct Plan {
  int columns;     // most rows of activations of an item
  int stages;      // of each warpgroup's ring of weights
  int panelBytes;  // for the activations of a lane of k, or as much of it as there is room for
  int buffers;     // for sums of the lanes
  int rowScales;   // floats for the activations' scales
};

// ---- what differs between formats ---------------------------------------------------------------------------------------
// A stage is kNumbers of k; its activations are kPanels panels of `columns` rows of 128 bytes. Thread lane l of a quad-row reads pieces of 16
// bytes by ldmatrix: two pieces, 32 bytes of 16 weight rows, are at(x), x = 0…3.

/// A weight stage as a warp sees it.
struct Stage {
  const unsigned char* bytes;  // of the stage
  int place;                   // of this thread's row and piece, swizzled
  const float* scale;
  Barrier* empty;

  __device__ __forceinline__ void load(uint32_t (&a)[4], int x) const { loadMatrix4(a, bytes + (place ^ (x << 5))); }
  /// The warp has read all it needs.
  __device__ __forceinline__ void release() const {
    __syncwarp();
    if ((threadIdx.x & 31) == 0) arrive(empty);
  }
};

/// Descriptors count in 16 bytes.
__device__ __forceinline__ uint64_t behind(uint64_t descriptor, int bytes) { return descriptor + static_cast<uint64_t>(bytes >> 4); }

/// sum = fmaf(scale of weights and of each row, part, sum).
template <int N, bool kRowScales>
__device__ __forceinline__ void promote(float (&sum)[N / 2], const float (&part)[N / 2], float scale, const float* rowScales) {
#pragma unroll
  for (int j = 0; j < N / 8; ++j) {
    float2 of = {scale, scale};
    if constexpr (kRowScales) {
      of = *reinterpret_cast<const float2*>(rowScales + 8 * j + 2 * (threadIdx.x & 3));
      of.x = __fmul_rn(scale, of.x), of.y = __fmul_rn(scale, of.y);
    }
    sum[4 * j] = fmaf(of.x, part[4 * j], sum[4 * j]);
    sum[4 * j + 1] = fmaf(of.y, part[4 * j + 1], sum[4 * j + 1]);
    sum[4 * j + 2] = fmaf(of.x, part[4 * j + 2], sum[4 * j + 2]);
    sum[4 * j + 3] = fmaf(of.y, part[4 * j + 3], sum[4 * j + 3]);
  }
}

/// A row's sixteen numbers from number 16 · c of a segment on, to their place in the panels.
template <int kRowBytes>
__device__ __forceinline__ unsigned char* panelPlace(unsigned char* panels, int columns, int row, int c, int piece) {
  constexpr int kGroups = 64 / (8 * kRowBytes);  // groups of 16 numbers in a panel's row of 128 bytes
  static_assert(kGroups == 4 || kGroups == 8);
  return panels + (c / kGroups) * columns * 128 + swizzled128(row, (c % kGroups) * kRowBytes + piece);
}

struct Bf16Weights {
  static constexpr int kWeightBytes = 2, kNumbers = 64, kLaneStep = 32, kPanels = 1;
  static constexpr bool kScaled = false, kRowScales = false;

  template <int N, int kSteps>
  static __device__ __forceinline__ void chain(float (&sum)[N / 2], const uint32_t (&a)[4][4], uint64_t rows) {
    holdRegisters(sum);
    beginProducts();
#pragma unroll
    for (int x = 0; x < kSteps; ++x) productBf16<N>(sum, a[x], behind(rows, 32 * x));
    endProducts();
    waitProducts<0>();
    holdRegisters(sum);
  }

  /// `numbers`: 64 or more, or 32 at the end of a lane.
  template <int N>
  static __device__ __forceinline__ void multiply(float (&sum)[N / 2], const Stage& stage, uint64_t rows, const float*, int numbers) {
    uint32_t a[4][4];
#pragma unroll
    for (int x = 0; x < 4; ++x) stage.load(a[x], x);
    stage.release();
    if (numbers > 32) chain<N, 4>(sum, a, rows);
    else chain<N, 2>(sum, a, rows);
  }

  static __device__ __forceinline__ void keep(const uint4 (&v)[2], bool there, unsigned char* panels, float*, int columns, int row, int c) {
    if (!there) return;
#pragma unroll
    for (int piece = 0; piece < 2; ++piece) *reinterpret_cast<uint4*>(panelPlace<2>(panels, columns, row, c, piece)) = v[piece];
  }
};

/// FP8 weights times bfloat16. What ldmatrix hands thread q of a quad are codes 4q…4q + 3 of 16; wgmma takes them for numbers 2q, 2q + 1,
/// 2q + 8 and 2q + 9, so that is where the activations' numbers 4q…4q + 3 are put.
struct Fp8Weights {
  static constexpr int kWeightBytes = 1, kNumbers = kFp8Block, kLaneStep = kFp8Block, kPanels = 2;
  static constexpr bool kScaled = true, kRowScales = false;

  static __device__ __forceinline__ void loadHalf(uint32_t (&a)[4][4], const Stage& stage, int half) {
#pragma unroll
    for (int x = 0; x < 2; ++x) {
      uint32_t codes[4];
      stage.load(codes, 2 * half + x);
      bf16OfFp8(codes[0], a[2 * x][0], a[2 * x][2]);
      bf16OfFp8(codes[1], a[2 * x][1], a[2 * x][3]);
      bf16OfFp8(codes[2], a[2 * x + 1][0], a[2 * x + 1][2]);
      bf16OfFp8(codes[3], a[2 * x + 1][1], a[2 * x + 1][3]);
    }
  }

  template <int N>
  static __device__ __forceinline__ void multiply(float (&sum)[N / 2], const Stage& stage, uint64_t rows, const float*, int) {
    float part[N / 2];
    uint32_t first[4][4], second[4][4];
    loadHalf(first, stage, 0);
    beginProducts();
#pragma unroll
    for (int x = 0; x < 4; ++x) productBf16<N>(part, first[x], behind(rows, 32 * x), x > 0);
    endProducts();
    loadHalf(second, stage, 1);  // while the tensor cores work
    const float scale = *stage.scale;
    stage.release();
    beginProducts();
#pragma unroll
    for (int x = 0; x < 4; ++x) productBf16<N>(part, second[x], behind(rows, N * 128 + 32 * x));
    endProducts();
    waitProducts<0>();
    holdRegisters(part);
    promote<N, false>(sum, part, scale, nullptr);
  }

  static __device__ __forceinline__ void keep(const uint4 (&v)[2], bool there, unsigned char* panels, float*, int columns, int row, int c) {
    if (!there) return;
    *reinterpret_cast<uint4*>(panelPlace<2>(panels, columns, row, c, 0)) = {v[0].x, v[0].z, v[1].x, v[1].z};
    *reinterpret_cast<uint4*>(panelPlace<2>(panels, columns, row, c, 1)) = {v[0].y, v[0].w, v[1].y, v[1].w};
  }
};

/// FP8 weights times activations that are quantised as they are put in the panels, in blocks of 128 (docs/numerics.md, 7).
struct Fp8WeightsQuantisedRows {
  static constexpr int kWeightBytes = 1, kNumbers = kFp8Block, kLaneStep = kFp8Block, kPanels = 1;
  static constexpr bool kScaled = true, kRowScales = true;

  template <int N>
  static __device__ __forceinline__ void multiply(float (&sum)[N / 2], const Stage& stage, uint64_t rows, const float* rowScales, int) {
    float part[N / 2];
    uint32_t a[4][4];
#pragma unroll
    for (int x = 0; x < 4; ++x) stage.load(a[x], x);
    const float scale = *stage.scale;
    stage.release();
    beginProducts();
#pragma unroll
    for (int x = 0; x < 4; ++x) productE4m3<N>(part, a[x], behind(rows, 32 * x), x > 0);
    endProducts();
    waitProducts<0>();
    holdRegisters(part);
    promote<N, true>(sum, part, scale, rowScales);
  }

  /// Two numbers' codes.
  static __device__ __forceinline__ uint32_t codes(uint32_t pair, float scale) {
    uint16_t both;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;\n" : "=h"(both) : "f"(__fdiv_rn(highBf16(pair), scale)), "f"(__fdiv_rn(lowBf16(pair), scale)));
    return both;
  }

  /// All threads of a warp call; eight that follow each other have the numbers of one block of a row.
  static __device__ __forceinline__ void keep(const uint4 (&v)[2], bool there, unsigned char* panels, float* rowScales, int columns, int row, int c) {
    float most = there ? fmaxf(largest(v[0]), largest(v[1])) : 0.0f;
#pragma unroll
    for (int d = 1; d < 8; d <<= 1) most = fmaxf(most, __shfl_xor_sync(kAllLanes, most, d));
    if (!there) return;
    const float scale = __fdiv_rn(fmaxf(most, 1e-12f), 448.0f);
    uint32_t word[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint4& from = v[i >> 1];
      word[i] = codes(i & 1 ? from.z : from.x, scale) | codes(i & 1 ? from.w : from.y, scale) << 16;
    }
    *reinterpret_cast<uint4*>(panelPlace<1>(panels, columns, row, c, 0)) = {word[0], word[1], word[2], word[3]};
    if (c % 8 == 0) rowScales[(c / 8) * columns + row] = scale;
  }
};

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
      awaitPrevious();
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

/// Which stage or buffer is next, and in which phase of its barriers.
struct Place {
  int at = 0;
  uint32_t phase = 0;
  __device__ __forceinline__ void next(int count) {
    if (++at == count) at = 0, phase ^= 1;
  }
};

/// Everything in shared memory. `which`: of which warpgroup.
struct Shared {
  unsigned char* panels;  // activations
  unsigned char* rings;   // weights
  unsigned char* sums;    // lanes' sums of the outputs that this block owns
  float* rowScales;
  float* weightScales;    // one a stage
  Barrier* barriers;
  int* prefix;
  int stages, sumsBytes;

  __device__ Shared(unsigned char* base, const Plan& plan) : panels(base), stages(plan.stages), sumsBytes(plan.columns * kSumBytes) {
    rings = panels + plan.panelBytes;
    sums = rings + 2 * stages * kStageBytes;
    rowScales = reinterpret_cast<float*>(sums + plan.buffers * sumsBytes);
    barriers = reinterpret_cast<Barrier*>(rowScales + plan.rowScales);
    weightScales = reinterpret_cast<float*>(barriers + kBarriers);
    prefix = reinterpret_cast<int*>(weightScales + 2 * kMostStages);
  }
  static constexpr int kBarriers = 4 * kMostStages + 2 * kMostBuffers;
  /// Bytes of barriers and of weights' scales.
  static constexpr int64_t kRest = kBarriers * 8 + 2 * kMostStages * 4;

  __device__ __forceinline__ unsigned char* stage(int which, int at) const { return rings + (which * stages + at) * kStageBytes; }
  __device__ __forceinline__ float* scale(int which, int at) const { return weightScales + which * kMostStages + at; }
  __device__ __forceinline__ Barrier* full(int which, int at) const { return barriers + which * kMostStages + at; }
  __device__ __forceinline__ Barrier* empty(int which, int at) const { return barriers + (2 + which) * kMostStages + at; }
  __device__ __forceinline__ unsigned char* buffer(int at) const { return sums + at * sumsBytes; }
  /// This block's buffer has all lanes; all owners have added what was sent before.
  __device__ __forceinline__ Barrier* sumsFull(int at) const { return barriers + 4 * kMostStages + at; }
  __device__ __forceinline__ Barrier* sumsFree(int at) const { return barriers + 4 * kMostStages + kMostBuffers + at; }

  __device__ void initialise(int buffers, int lanes) const {
    for (int which = 0; which < 2; ++which) {
      for (int at = 0; at < stages; ++at) {
        initBarrier(full(which, at), 32);
        initBarrier(empty(which, at), 4);
      }
    }
    for (int at = 0; at < buffers; ++at) {
      initBarrier(sumsFull(at), 1);
      initBarrier(sumsFree(at), lanes);
    }
    fenceBarriers();
  }
};

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
#pragma unroll
        for (int i = 0; i < kTile / 4; ++i) {
          const int row = firstRow + 4 * i;
          if (row < rows) copyWeights(to + swizzled128(row, piece), from + 4 * i * rowBytes);
        }
      }
      if (Format::kScaled && thread == 0 && rows > 0) copyScale(shared.scale(which, place.at), scale + s);
      arriveAfterCopies(shared.full(which, place.at));
      from += 128;
      place.next(plan.stages);
    }
  }
  waitCopies<0>();
}

// ---- the warpgroups that multiply ----------------------------------------------------------------------------------------

/// Rows of activations of `numbers` of k from `begin` on, to the panels.
template <class Format>
__device__ void keepRows(const GemmProblem& p, int firstRow, int rows, int begin, int numbers, int columns, unsigned char* panels, float* rowScales) {
  constexpr int kAtOnce = 4;
  const int groups = numbers / 16, all = rows * groups;
  for (int first = 0; first < all; first += kAtOnce * kMultipliers) {
    uint4 v[kAtOnce][2] = {};
#pragma unroll
    for (int u = 0; u < kAtOnce; ++u) {
      const int i = first + u * kMultipliers + static_cast<int>(threadIdx.x), row = i / groups;
      if (i < all) {
        const unsigned char* from = static_cast<const unsigned char*>(p.x.data) + (sourceRow(p, firstRow + row) * p.xStride + begin + (i - row * groups) * 16) * 2;
        v[u][0] = *reinterpret_cast<const uint4*>(from), v[u][1] = *reinterpret_cast<const uint4*>(from + 16);
      }
    }
#pragma unroll
    for (int u = 0; u < kAtOnce; ++u) {
      const int i = first + u * kMultipliers + static_cast<int>(threadIdx.x), row = i / groups;
      Format::keep(v[u], i < all, panels, rowScales, columns, row, i - row * groups);
    }
  }
}

/// What is in the panels.
struct Kept {
  int row = -1, stage = 0;
};

struct Multiplier {
  Place ring, buffer;
  Kept kept;
};

/// Sends a warpgroup's sums to their owners: octet u of its 64 outputs to block u · lanes / 8.
template <int N>
__device__ __forceinline__ void sendSums(const float (&sum)[N / 2], const Shared& shared, int buffer, int lane, int lanes, int which) {
  const int thread = threadIdx.x & 31, warp = (threadIdx.x >> 5) & 3, owned = 8 / lanes;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int octet = 2 * warp + half, owner = octet / owned;
    const unsigned char* place = shared.buffer(buffer) + ((lane * 2 + which) * owned + octet % owned) * (N / 8) * 256 + thread * 8;
    const uint32_t to = addressIn(place, owner), barrier = addressIn(shared.sumsFull(buffer), owner);
#pragma unroll
    for (int j = 0; j < N / 8; ++j) storeAt(to + j * 256, sum[4 * j + 2 * half], sum[4 * j + 2 * half + 1], barrier);
  }
}

template <class Format, int N>
__device__ __forceinline__ void multiplyItem(const GemmProblem& p, const Plan& plan, const Shared& shared, const Items& items, int rows, const Lane& part, int lane,
                                             int lanes, Multiplier& state) {
  const int which = threadIdx.x >> 7, thread = threadIdx.x & 31, warp = (threadIdx.x >> 5) & 3;
  const int place = swizzled128(16 * warp + (thread & 15), thread >> 4);
  const int segment = plan.panelBytes / (Format::kPanels * N * 128);  // stages whose activations the panels take
  const uint64_t panels = rowsOfK(shared.panels);
  float sum[N / 2] = {};
  for (int first = 0; first < part.stages; first += segment) {
    const int end = first + segment < part.stages ? first + segment : part.stages;
    if (state.kept.row != items.row || state.kept.stage != first) {
      syncSome(kMultipliersMeet, kMultipliers);  // nobody multiplies what was there before
      const int left = part.numbers - first * Format::kNumbers, most = (end - first) * Format::kNumbers;
      keepRows<Format>(p, items.row, rows, part.begin + first * Format::kNumbers, left < most ? left : most, N, shared.panels, shared.rowScales);
      fenceAsyncProxy();
      syncSome(kMultipliersMeet, kMultipliers);
      state.kept = {items.row, first};
    }
    for (int s = first; s < end; ++s) {
      const int at = state.ring.at;
      wait(shared.full(which, at), state.ring.phase);
      const Stage stage{shared.stage(which, at), place, shared.scale(which, at), shared.empty(which, at)};
      Format::template multiply<N>(sum, stage, behind(panels, (s - first) * Format::kPanels * N * 128), shared.rowScales + (s - first) * N,
                                   part.numbers - s * Format::kNumbers);
      state.ring.next(plan.stages);
    }
  }
  waitAcross(shared.sumsFree(state.buffer.at), state.buffer.phase ^ 1);
  sendSums<N>(sum, shared, state.buffer.at, lane, lanes, which);
  state.buffer.next(plan.buffers);
}

/// Columns of wgmma for so many rows.
__host__ __device__ constexpr int columnsFor(int rows) { return rows <= 8 ? 8 : rows <= 16 ? 16 : rows <= 32 ? 32 : rows <= 64 ? 64 : kMostColumns; }

template <class Format>
__device__ void multiplyAll(const GemmProblem& p, const Plan& plan, const Shared& shared, Items items, const Lane& part, int lane, int lanes) {
  Multiplier state;
  for (int item = items.begin(); item < items.end(); ++item) {
    items.moveTo(item);
    const int rows = items.rows();
    switch (columnsFor(rows)) {
      case 8: multiplyItem<Format, 8>(p, plan, shared, items, rows, part, lane, lanes, state); break;
      case 16: multiplyItem<Format, 16>(p, plan, shared, items, rows, part, lane, lanes, state); break;
      case 32: multiplyItem<Format, 32>(p, plan, shared, items, rows, part, lane, lanes, state); break;
      case 64: multiplyItem<Format, 64>(p, plan, shared, items, rows, part, lane, lanes, state); break;
      default: multiplyItem<Format, kMostColumns>(p, plan, shared, items, rows, part, lane, lanes, state); break;
    }
  }
}

// ---- the warps that add lanes ---------------------------------------------------------------------------------------------

/// The results of the octets that this block owns: two rows of activations and one output (of each warpgroup) a thread at a time.
template <bool kDual>
__device__ __forceinline__ void addLanes(const GemmProblem& p, const unsigned char* sums, const Items& items, int rows, int columns, int lane, int lanes) {
  const int owned = 8 / lanes, perOctet = columns / 8, ofWarpgroup = owned * perOctet * 256;
  const int outputs = static_cast<int>(outputsOf(p));
  for (int unit = threadIdx.x % kAdders; unit < owned * perOctet * 32; unit += kAdders) {
    const int thread = unit & 31, fragment = unit >> 5, octet = fragment / perOctet, j = fragment - octet * perOctet;
    float2 total[2];
#pragma unroll
    for (int which = 0; which < 2; ++which) {
      const unsigned char* from = sums + which * ofWarpgroup + unit * 8;
      total[which] = *reinterpret_cast<const float2*>(from);
      for (int c = 1; c < lanes; ++c) {
        const float2 v = *reinterpret_cast<const float2*>(from + c * 2 * ofWarpgroup);
        total[which].x += v.x, total[which].y += v.y;
      }
    }
    const int output = items.output + (lane * owned + octet) * 8 + (thread >> 2);
    const int row = 8 * j + 2 * (thread & 3);
    const auto store = [&](int at, int to, float value, float second) {
      if (at < rows && to < outputs) storeResult<kDual>(p, items.row + at, to, value, second);
    };
    if constexpr (kDual) {
      store(row, output, total[0].x, total[1].x);
      store(row + 1, output, total[0].y, total[1].y);
    } else {
#pragma unroll
      for (int which = 0; which < 2; ++which) {
        store(row, output + which * kTile, total[which].x, 0);
        store(row + 1, output + which * kTile, total[which].y, 0);
      }
    }
  }
}

__device__ inline void addAll(const GemmProblem& p, const Plan& plan, const Shared& shared, Items items, int lane, int lanes) {
  const int thread = threadIdx.x % kAdders;
  Place buffer;
  for (int item = items.begin(); item < items.end(); ++item) {
    items.moveTo(item);
    const int rows = items.rows(), columns = columnsFor(rows);
    if (thread == 0) arriveExpecting(shared.sumsFull(buffer.at), columns * kSumBytes);
    waitAcross(shared.sumsFull(buffer.at), buffer.phase);
    const unsigned char* sums = shared.buffer(buffer.at);
    if (p.epilogue == Epilogue::swiglu) addLanes<true>(p, sums, items, rows, columns, lane, lanes);
    else addLanes<false>(p, sums, items, rows, columns, lane, lanes);
    syncSome(kAddersMeet, kAdders);
    if (thread < lanes) arriveAt(shared.sumsFree(buffer.at), thread);
    buffer.next(plan.buffers);
  }
}

// ---- the kernel -----------------------------------------------------------------------------------------------------------

template <class Format>
__global__ void __launch_bounds__(kThreads, 1) gemmFew(const __grid_constant__ GemmProblem p, const __grid_constant__ Plan plan) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(1024) unsigned char memory[];
  const Shared shared(memory, plan);
  const int lane = static_cast<int>(clusterRank()), lanes = static_cast<int>(clusterSize()), warp = threadIdx.x >> 5;
  if (threadIdx.x == 0) shared.initialise(plan.buffers, lanes);
  arriveAtCluster();
  __syncthreads();
  const Items items(p, plan.columns, shared.prefix);
  const Lane part = laneOf<Format>(p, lane, lanes);
  if (warp < kMultipliers / 32) {
    moreRegisters<200>();
    awaitPrevious();
    waitForCluster();  // the others' barriers are there
    multiplyAll<Format>(p, plan, shared, items, part, lane, lanes);
  } else {
    fewerRegisters<104>();
    if (warp < kMultipliers / 32 + 2) {
      copyAll<Format>(p, plan, shared, items, part, warp - kMultipliers / 32);
      waitForCluster();
    } else {
      awaitPrevious();
      waitForCluster();
      addAll(p, plan, shared, items, lane, lanes);
    }
  }
  syncCluster();  // nobody ends while others still send
#endif
}

/// Rows of activations that an item should take: all of them, or what most groups will have.
inline int columnsOf(const GemmProblem& p, int64_t rows) {
  if (!p.groupStart) return columnsFor(static_cast<int>(std::min<int64_t>(p.capacity, kMostColumns)));
  return rows <= 4 ? 32 : rows <= 32 ? 64 : kMostColumns;
}

inline int64_t sharedBytesOf(const GemmProblem& p, const Plan& plan) {
  return plan.panelBytes + 2 * plan.stages * kStageBytes + plan.buffers * plan.columns * kSumBytes + plan.rowScales * 4 + Shared::kRest + prefixBytes(p);
}
/// How shared memory is cut; too few stages where there is too little of it.
template <class Format>
Plan planOf(const CudaContext& context, const GemmProblem& p, int64_t rows) {
  Plan plan;
  plan.columns = columnsOf(p, rows);
  plan.buffers = plan.columns <= 32 ? 2 : 1;
  const int64_t stages = ceilDiv(ceilDiv(depthOf(p), lanesOf(depthOf(p))), Format::kNumbers);
  plan.panelBytes = static_cast<int>(std::min<int64_t>(96 << 10, stages * Format::kPanels * plan.columns * 128));
  plan.rowScales = Format::kRowScales ? plan.panelBytes / 128 : 0;
  plan.stages = 0;
  plan.stages = static_cast<int>(std::clamp<int64_t>((context.sharedBytes - sharedBytesOf(p, plan)) / (2 * kStageBytes), 0, kMostStages));
  return plan;
}

/// Clusters of so many blocks that run at the same time. Asked once: a block takes a multiprocessor's shared memory whatever the problem.
template <class Format>
int clustersAtOnce(const CudaContext& context, int lanes, int64_t sharedBytes) {
  static std::atomic<int> known[kMaxLanes + 1];
  int clusters = known[lanes].load(std::memory_order_relaxed);
  if (clusters == 0) {
    LONGCAT_CUDA(cudaFuncSetAttribute(reinterpret_cast<const void*>(gemmFew<Format>), cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(sharedBytes)));
    cudaLaunchAttribute cluster = {};
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim = {static_cast<unsigned>(lanes), 1, 1};
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(static_cast<unsigned>(context.multiprocessors / lanes * lanes));
    config.blockDim = dim3(kThreads);
    config.dynamicSmemBytes = static_cast<size_t>(sharedBytes);
    config.attrs = &cluster;
    config.numAttrs = 1;
    LONGCAT_CUDA(cudaOccupancyMaxActiveClusters(&clusters, gemmFew<Format>, &config));
    known[lanes].store(clusters, std::memory_order_relaxed);
  }
  return clusters;
}

/// Launches, unless this card cannot.
template <class Format>
bool launchFew(const CudaContext& context, const GemmProblem& p, int64_t rows) {
  const Plan plan = planOf<Format>(context, p, rows);
  if (plan.stages < 2) return false;
  const int lanes = lanesOf(depthOf(p));
  const int64_t sharedBytes = sharedBytesOf(p, plan), items = mostItems(p, plan.columns, outputsOfItem(p));
  const int64_t clusters = std::min<int64_t>(items, clustersAtOnce<Format>(context, lanes, sharedBytes));
  if (clusters == 0) return false;
  launch(context, gemmFew<Format>, LaunchShape{dim3(static_cast<unsigned>(clusters * lanes)), kThreads, static_cast<size_t>(sharedBytes), static_cast<unsigned>(lanes)}, p,
         plan);
  return true;
}

}  // namespace longcat::cuda::few
