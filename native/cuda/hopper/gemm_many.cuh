// Products of many rows on Hopper: persistent clusters of two blocks, in each a warpgroup that copies and two that multiply.
//
// An item is a tile of rows × weight rows. Each block has half of the tile's rows, as wgmma's A, and all of its weight rows, as B: either block fetches
// half of those and sends them to both, since the L2 cache cannot feed the tensor cores otherwise. Rows that are chosen by index are gathered by
// ordinary asynchronous copies, all else is the copy engine's. Stages of 64 numbers of k pass through a ring in shared memory. The order of summation
// is gemm_formats.cuh's: a lane of k is a chain in the warpgroup's registers, and a finished lane is added to the total, which waits in other
// registers and, where those do not suffice, in shared memory.
//
// For SwiGLU the first half of a warpgroup's columns are the gate's and the second half the same outputs of the up matrix, so that a thread has
// both sums of an output.
#pragma once

#include "cuda/dependent.cuh"
#include "cuda/gemm_formats.cuh"
#include "cuda/gemm_work.cuh"
#include "cuda/hopper/cluster.cuh"
#include "cuda/hopper/copy.cuh"
#include "cuda/hopper/wgmma.cuh"
#include "cuda/launch.cuh"

namespace longcat::cuda::many {

constexpr int kCluster = 2, kMultipliers = 2, kThreads = 128 * (kMultipliers + 1);
constexpr int kGatherers = 96;                      // threads that copy rows by index: all but the first warp of theirs
constexpr int kDepth = 64, kRowBytes = 128;         // numbers of k in a stage, bytes of a row of them
constexpr int kUnit = 64;                           // rows of a wgmma, and of a copy of rows
constexpr int kSumRegisters = 184;                  // of a thread, for lanes and totals
constexpr int kProducerRegisters = 56, kMultiplierRegisters = 224;

/// kRows, kColumns: of a block. With 128 rows each warpgroup has 64 of them and all columns, with 64 all rows and half of the columns.
template <bool kDual_, int kRows_, int kColumns_>
struct Shape {
  static constexpr bool kDual = kDual_;
  static constexpr int kRows = kRows_, kColumns = kColumns_, kTileRows = kCluster * kRows;
  static constexpr int kWidth = kRows == 128 ? kColumns : kColumns / 2;  // columns of a warpgroup
  static constexpr int kOutputs = kDual ? kColumns / 2 : kColumns, kOwnOutputs = kDual ? kWidth / 2 : kWidth;  // of a block, of a warpgroup
  /// Each half of a block's columns comes in so many copies of kBox. For SwiGLU the halves are the gate's and the up matrix's, in turn for each warpgroup.
  static constexpr int kCopies = kDual && kWidth < kColumns ? 2 : 1, kBox = kColumns / (2 * kCopies);
  static constexpr int kRowsBytes = kRows * kRowBytes, kStageBytes = kRowsBytes + kColumns * kRowBytes;
  /// Of a warp: totals that have no registers; later results on their way out, kPieces × 8 outputs of 16 rows.
  static constexpr int kPieces = kOwnOutputs % 64 == 0 ? 8 : 4;
  static constexpr int kTotalBytes = kWidth > kSumRegisters ? 32 * 4 * (kWidth - kSumRegisters) : 0;
  static constexpr int kSpareBytes = kTotalBytes > 16 * 16 * kPieces ? kTotalBytes : 16 * 16 * kPieces;
  static constexpr int kStages = ((221 << 10) - 4 * kMultipliers * kSpareBytes) / kStageBytes;
  static int64_t sharedBytes(const GemmProblem& p) {
    return kStages * (kStageBytes + sizeof(int4) + 2 * sizeof(Barrier)) + 4 * kMultipliers * kSpareBytes + sizeof(TensorMap) + prefixBytes(p);
  }
};

/// A block's shared memory. `tiles`: with the first stage of an item comes what the block has of it (row, rows, output).
template <class Shape>
struct Memory {
  unsigned char *stages, *spare;
  TensorMap* map;
  int4* tiles;
  Barrier *full, *empty;
  int* prefix;

  __device__ explicit Memory(unsigned char* shared) {
    stages = shared;
    spare = stages + Shape::kStages * Shape::kStageBytes;
    map = reinterpret_cast<TensorMap*>(spare + 4 * kMultipliers * Shape::kSpareBytes);
    tiles = reinterpret_cast<int4*>(map + 1);
    full = reinterpret_cast<Barrier*>(tiles + Shape::kStages);
    empty = full + Shape::kStages;
    prefix = reinterpret_cast<int*>(empty + Shape::kStages);
  }
  __device__ unsigned char* rows(int stage) const { return stages + stage * Shape::kStageBytes; }
  __device__ unsigned char* weights(int stage) const { return rows(stage) + Shape::kRowsBytes; }
};

/// The rows [row, row + rows) of an item that block `rank` has; in units, as even as can be.
struct Share {
  int row, rows;
  __device__ __forceinline__ Share(const WorkItem& item, int rank) {
    const int all = static_cast<int>(item.rowEnd - item.row), most = (all + kCluster * kUnit - 1) / (kCluster * kUnit) * kUnit;
    row = static_cast<int>(item.row) + rank * most;
    rows = rank == 0 ? min(all, most) : max(all - most, 0);
  }
  __device__ __forceinline__ int padded() const { return (rows + kUnit - 1) / kUnit * kUnit; }
};

constexpr int kMapSlots = 14, kMostMultiprocessors = 256;
/// A map where publishMap() can put it.
struct alignas(128) PublishedMap {
  TensorMap map;
};
/// Maps of experts' matrices, whose addresses only the device knows: by multiprocessor, since a block fills one.
static __device__ PublishedMap groupMaps[kMostMultiprocessors][kMapSlots];

/// Makes maps for one group's matrix after another, kSlots of which may be in use.
template <int kSlots>
class GroupMaps {
 public:
  static_assert(kSlots <= kMapSlots);
  /// Whole warps call, here and below. `model`: a map of such a matrix; `shared`: room for one.
  __device__ __forceinline__ GroupMaps(const TensorMap& model, TensorMap* shared) : shared_(shared) {
    uint32_t multiprocessor;
    asm("mov.u32 %0, %%smid;\n" : "=r"(multiprocessor));
    slots_ = groupMaps[multiprocessor];
    const int lane = threadIdx.x & 31;
    reinterpret_cast<uint32_t*>(shared)[lane] = reinterpret_cast<const uint32_t*>(&model)[lane];
    __syncwarp();
  }
  __device__ __forceinline__ const TensorMap* of(const unsigned char* matrix) {
    TensorMap* map = &slots_[next_].map;
    next_ = next_ + 1 == kSlots ? 0 : next_ + 1;
    if ((threadIdx.x & 31) == 0) pointMap(shared_, matrix);
    __syncwarp();
    publishMap(map, shared_);
    return map;
  }

 private:
  TensorMap* shared_;
  PublishedMap* slots_;
  int next_ = 0;
};

/// The first warp: weights, and rows where they lie one after another.
template <class Shape>
__device__ __forceinline__ void copyTiles(const GemmProblem& p, const TensorMap& weightMap, const TensorMap& weightMap2, const TensorMap& rowMap,
                                          const Work& work, const Memory<Shape>& m) {
  const int rank = static_cast<int>(clusterRank());
  const bool gathers = p.rowIndex != nullptr, leads = (threadIdx.x & 31) == 0;
  const uint64_t policy = usualPolicy();
  const int steps = static_cast<int>((depthOf(p) + kDepth - 1) / kDepth);
  const TensorMap* map = Shape::kDual && rank == 1 ? &weightMap2 : &weightMap;
  GroupMaps<Shape::kStages + 1> maps(weightMap, m.map);
  RingPlace<Shape::kStages> place;
  for (int item = blockIdx.x / kCluster; item < work.items(); item += gridDim.x / kCluster) {
    const WorkItem tile = work.at(item);
    const Share share(tile, rank);
    if (p.groupStart) map = maps.of(matrixOf(p, tile.group, Shape::kDual && rank == 1).data);
    const int output = static_cast<int>(tile.output), weightRow = output + (Shape::kDual ? 0 : rank * Shape::kBox);
    if (leads) {
      const int bytes = Shape::kColumns * kRowBytes + (gathers ? 0 : share.padded() * kRowBytes);
      for (int step = 0; step < steps; ++step, place.next()) {
        Barrier* full = m.full + place.stage;
        wait(m.empty + place.stage, place.phase ^ 1);
        if (step == 0) m.tiles[place.stage] = make_int4(share.row, share.rows, output, 0);
        arriveExpecting(full, bytes);
#pragma unroll
        for (int i = 0; i < Shape::kCopies; ++i)
          copyBoxToAll(m.weights(place.stage) + (rank + 2 * i) * Shape::kBox * kRowBytes, map, full, step * kDepth, weightRow + i * Shape::kBox,
                       (1 << kCluster) - 1, policy);
        if (gathers) continue;
        for (int r = 0; r < share.rows; r += kUnit) copyBox(m.rows(place.stage) + r * kRowBytes, &rowMap, full, step * kDepth, share.row + r, policy);
      }
    }
    __syncwarp();
  }
}

/// The other warps beside it, where rows are chosen by index: eight threads copy 128 bytes of a row, and keep where it and their others begin.
template <class Shape>
__device__ __forceinline__ void gatherRows(const GemmProblem& p, const Work& work, const Memory<Shape>& m) {
  constexpr int kAtOnce = kGatherers / 8, kOwn = (Shape::kRows + kAtOnce - 1) / kAtOnce;
  static_assert(kAtOnce % 4 == 0);  // so that every second of a thread's rows has the same swizzle
  const int rank = static_cast<int>(clusterRank()), first = (threadIdx.x - 32) / 8, piece = threadIdx.x % 8;
  const int places[2] = {swizzled128(first, piece), swizzled128(first + kAtOnce, piece)};
  const int k = static_cast<int>(depthOf(p)), steps = (k + kDepth - 1) / kDepth;
  RingPlace<Shape::kStages> place;
  for (int item = blockIdx.x / kCluster; item < work.items(); item += gridDim.x / kCluster) {
    const WorkItem tile = work.at(item);
    const Share share(tile, rank);
    const int rows = share.padded(), last = static_cast<int>(tile.rowEnd) - 1;
    uint32_t begin[kOwn];  // in pieces of 16 bytes
#pragma unroll
    for (int i = 0; i < kOwn; ++i) begin[i] = static_cast<uint32_t>(p.rowIndex[min(share.row + first + i * kAtOnce, last)] * (p.xStride / 8));
    const uint4* from = static_cast<const uint4*>(p.x.data) + piece;
    for (int step = 0; step < steps; ++step, from += kRowBytes / 16, place.next()) {
      wait(m.empty + place.stage, place.phase ^ 1);
      const bool there = step * kDepth + piece * 8 < k;
      unsigned char* to = m.rows(place.stage);
#pragma unroll
      for (int i = 0; i < kOwn; ++i) {
        if (first + i * kAtOnce < rows) copyAsync16(to + places[i % 2] + i / 2 * (2 * kAtOnce * kRowBytes), from + begin[i], there);
      }
      arriveAfterCopies(m.full + place.stage);
    }
  }
}

/// A multiplying warpgroup's place in the ring.
template <class Shape>
struct Consumer {
  const Memory<Shape>& m;
  const bool gathered;  // rows come by ordinary copies
  RingPlace<Shape::kStages> place;

  __device__ Consumer(const Memory<Shape>& memory, bool gathered) : m(memory), gathered(gathered) {}
  __device__ __forceinline__ void await() {
    wait(m.full + place.stage, place.phase);
    if (gathered) fenceAsyncProxy();
  }
  /// The stage has been read: each warp tells both blocks, since either copies into it.
  __device__ __forceinline__ void pass() {
    const int lane = threadIdx.x & 31;
    if (lane < kCluster) arriveAt(m.empty + place.stage, lane);
    place.next();
  }
  __device__ __forceinline__ RingPlace<Shape::kStages> next() const {
    RingPlace<Shape::kStages> behind = place;
    behind.next();
    return behind;
  }
  /// Takes no part in an item of so many stages.
  __device__ __forceinline__ void skip(int stages) {
    for (int i = 0; i < stages; ++i) {
      wait(m.full + place.stage, place.phase);
      pass();
    }
  }
};

/// sum += kCount products of 16 numbers of k each; `add` false: sum = those. It waits for them: the stage goes back at once, and the other warpgroup
/// has the tensor cores meanwhile.
template <int kWidth, int kCount>
__device__ __forceinline__ void multiplySteps(float (&sum)[kWidth / 2], const unsigned char* rows, const unsigned char* weights, bool add) {
  const uint64_t a = rowsOfK(rows), b = rowsOfK(weights);
  beginProducts();
#pragma unroll
  for (int i = 0; i < kCount; ++i) productBf16<kWidth>(sum, a + 2 * i, b + 2 * i, i > 0 || add);
  endProducts();
  waitProducts<0>();
}

/// sum = a lane of k: steps [begin, end) of 32 numbers, of `steps`. A lane may begin or end in the middle of a stage.
template <class Shape>
__device__ __forceinline__ void multiplyLane(float (&sum)[Shape::kWidth / 2], Consumer<Shape>& ring, int warpgroup, int begin, int end, int steps) {
  constexpr bool kSplitsRows = Shape::kRows == 128;
  const int rowOffset = kSplitsRows ? warpgroup * kUnit * kRowBytes : 0, weightOffset = kSplitsRows ? 0 : warpgroup * Shape::kWidth * kRowBytes;
  const auto rows = [&] { return ring.m.rows(ring.place.stage) + rowOffset; };
  const auto weights = [&] { return ring.m.weights(ring.place.stage) + weightOffset; };
  int step = begin;
  if (step & 1) {
    multiplySteps<Shape::kWidth, 2>(sum, rows() + kRowBytes / 2, weights() + kRowBytes / 2, false);
    ring.pass();
    ++step;
  }
  for (; step + 1 < end; step += 2) {
    ring.await();
    multiplySteps<Shape::kWidth, 4>(sum, rows(), weights(), step != begin);
    ring.pass();
  }
  if (step < end) {
    ring.await();
    multiplySteps<Shape::kWidth, 2>(sum, rows(), weights(), step != begin);
    if (end == steps) ring.pass();
  }
  holdRegisters(sum);
}

/// The finished lanes' sum, ascending: what has none of the kRegisters is in shared memory, 16 bytes a thread side by side.
template <int kSums, int kRegisters = kSumRegisters - kSums>
struct Total {
  static constexpr int kOwn = kSums < kRegisters ? kSums : kRegisters;
  float own[kOwn] = {};
  float4* rest;

  __device__ explicit Total(unsigned char* spare) : rest(reinterpret_cast<float4*>(spare) + (threadIdx.x & 31)) {}
  __device__ __forceinline__ void add(const float (&sum)[kSums], bool first) {
#pragma unroll
    for (int i = 0; i < kOwn; ++i) own[i] = first ? sum[i] : own[i] + sum[i];
#pragma unroll
    for (int i = kOwn; i < kSums; i += 4) {
      float4 v = rest[(i - kOwn) / 4 * 32];
      v.x = first ? sum[i] : v.x + sum[i], v.y = first ? sum[i + 1] : v.y + sum[i + 1];
      v.z = first ? sum[i + 2] : v.z + sum[i + 2], v.w = first ? sum[i + 3] : v.w + sum[i + 3];
      rest[(i - kOwn) / 4 * 32] = v;
    }
  }
  __device__ __forceinline__ void finish(float (&sum)[kSums]) const {
#pragma unroll
    for (int i = 0; i < kOwn; ++i) sum[i] = own[i] + sum[i];
#pragma unroll
    for (int i = kOwn; i < kSums; i += 4) {
      const float4 v = rest[(i - kOwn) / 4 * 32];
      sum[i] = v.x + sum[i], sum[i + 1] = v.y + sum[i + 1], sum[i + 2] = v.z + sum[i + 2], sum[i + 3] = v.w + sum[i + 3];
    }
  }
};

/// Whether results can leave 16 bytes at a time.
__device__ __forceinline__ bool storesOctets(const GemmProblem& p) {
  return p.outDtype == DType::bf16 && outputsOf(p) % 8 == 0 && p.outStride % 8 == 0 && reinterpret_cast<uintptr_t>(p.out.data) % 16 == 0;
}

/// Where the 16-byte piece `piece` of a row lies; kPieces to a row. Eight rows' equal pieces lie in different banks.
template <int kPieces>
__device__ __forceinline__ int layoutPlace(int row, int piece) {
  const int at = row * kPieces + piece, line = at >> 3;
  return line * 128 + (((at & 7) ^ (line & 7)) << 4);
}

/// Writes a warp's 16 rows, of which `rows` are live, from `output` on: as octets, through shared memory.
template <class Shape>
__device__ __forceinline__ void storeOctets(const GemmProblem& p, float (&sum)[Shape::kWidth / 2], int row, int rows, int output, unsigned char* spare) {
  constexpr int kPieces = Shape::kPieces;
  const int lane = threadIdx.x & 31, q = lane & 3, outputs = static_cast<int>(outputsOf(p));
#pragma unroll
  for (int chunk = 0; chunk < Shape::kOwnOutputs / (8 * kPieces); ++chunk) {
    __syncwarp();  // nobody reads what was there
#pragma unroll
    for (int j = 0; j < kPieces; j += 2) {
      float* s = sum + 4 * (chunk * kPieces + j);
      if (!Shape::kDual && p.bias.data) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int o = output + (chunk * kPieces + j + i / 2) * 8 + 2 * q + i % 2;
          const float bias = o < outputs ? loadNumber(p.bias.data, p.bias.dtype, o) : 0;
          s[i / 2 * 4 + i % 2] += bias;
          s[i / 2 * 4 + i % 2 + 2] += bias;
        }
      }
      uint32_t pairs[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) pairs[i] = bf16Pair(s[2 * i], s[2 * i + 1]);
      storeMatrix4(spare + layoutPlace<kPieces>(lane % 16, j + lane / 16), pairs);
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < kPieces / 2; ++i) {
      const int unit = lane + i * 32, r = unit / kPieces, piece = unit % kPieces, o = output + (chunk * kPieces + piece) * 8;
      if (r < rows && o < outputs) {
        const uint4 octet = *reinterpret_cast<const uint4*>(spare + layoutPlace<kPieces>(r, piece));
        *reinterpret_cast<uint4*>(static_cast<Bf16*>(p.out.data) + (row + r) * p.outStride + o) = octet;
      }
    }
  }
}

/// The same one by one: float32 results, odd strides.
template <class Shape>
__device__ __forceinline__ void storeNumbers(const GemmProblem& p, const float (&sum)[Shape::kWidth / 2], int row, int rows, int output, unsigned char* spare) {
  constexpr int kOctets = Shape::kPieces / 2, kRow = 8 * kOctets;  // as float32
  const int lane = threadIdx.x & 31, g = lane >> 2, q = lane & 3, outputs = static_cast<int>(outputsOf(p));
  auto* numbers = reinterpret_cast<float*>(spare);
#pragma unroll
  for (int chunk = 0; chunk < Shape::kOwnOutputs / kRow; ++chunk) {
    __syncwarp();  // nobody reads what was there
#pragma unroll
    for (int i = 0; i < 4 * kOctets; ++i) numbers[(i % 4 / 2 * 8 + g) * kRow + i / 4 * 8 + 2 * q + i % 2] = sum[chunk * 4 * kOctets + i];
    __syncwarp();
#pragma unroll 1
    for (int i = lane; i < 16 * kRow; i += 32) {
      const int r = i / kRow, o = output + chunk * kRow + i % kRow;
      if (r < rows && o < outputs) storeResult<false>(p, row + r, o, numbers[i], 0);
    }
  }
}

template <class Shape>
__device__ __forceinline__ void storeTile(const GemmProblem& p, float (&sum)[Shape::kWidth / 2], int row, int rows, int output, unsigned char* spare) {
  if constexpr (Shape::kDual) {
#pragma unroll
    for (int i = 0; i < Shape::kWidth / 4; ++i) sum[i] = silu(sum[i]) * sum[i + Shape::kWidth / 4];
  }
  storesOctets(p) ? storeOctets<Shape>(p, sum, row, rows, output, spare) : storeNumbers<Shape>(p, sum, row, rows, output, spare);
  __syncwarp();
}

/// One item: its lanes of k, their total, and the results.
template <class Shape>
__device__ __forceinline__ void multiplyTile(const GemmProblem& p, Consumer<Shape>& ring, const int4& tile, int warpgroup) {
  constexpr bool kSplitsRows = Shape::kRows == 128;
  const int64_t k = depthOf(p);
  const int steps = static_cast<int>(k / Bf16Format::kStep), lanes = lanesOf(k), warp = threadIdx.x >> 5 & 3;
  const int first = (kSplitsRows ? warpgroup * kUnit : 0) + 16 * warp;  // the warp's first row
  if (tile.y <= first - 16 * warp) return ring.skip((steps + 1) / 2);
  unsigned char* spare = ring.m.spare + (4 * warpgroup + warp) * Shape::kSpareBytes;
  float sum[Shape::kWidth / 2] = {};
  Total<Shape::kWidth / 2> total(spare);
  for (int lane = 0; lane < lanes; ++lane) {
    multiplyLane(sum, ring, warpgroup, laneBegin(steps, lane, lanes), laneBegin(steps, lane + 1, lanes), steps);
    if (lane + 1 < lanes) total.add(sum, lane == 0);
    else if (lane > 0) total.finish(sum);
  }
  storeTile<Shape>(p, sum, tile.x + first, tile.y - first, tile.z + (kSplitsRows ? 0 : warpgroup * Shape::kOwnOutputs), spare);
}

template <class Shape>
__device__ __forceinline__ void multiply(const GemmProblem& p, int items, const Memory<Shape>& m) {
  const int warpgroup = threadIdx.x / 128 - 1;
  Consumer<Shape> ring(m, p.rowIndex != nullptr);
  for (int item = blockIdx.x / kCluster; item < items; item += gridDim.x / kCluster) {
    ring.await();
    const int4 tile = m.tiles[ring.place.stage];
    __syncwarp();  // all lanes have it, before one of them gives the stage back
    multiplyTile(p, ring, tile, warpgroup);
  }
}

template <class Shape>
__global__ void __launch_bounds__(kThreads, 1) gemmMany(const __grid_constant__ GemmProblem p, const __grid_constant__ TensorMap weightMap,
                                                        const __grid_constant__ TensorMap weightMap2, const __grid_constant__ TensorMap rowMap) {
  awaitPrevious();
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(1024) unsigned char shared[];
  const Memory<Shape> m(shared);
  if (threadIdx.x == 0) {
    prefetchMap(&rowMap);
    for (int stage = 0; stage < Shape::kStages; ++stage) {
      initBarrier(m.full + stage, 1 + (p.rowIndex ? kGatherers : 0));
      initBarrier(m.empty + stage, kCluster * kMultipliers * 4);
    }
    fenceBarriers();
  }
  const Work work(p, Shape::kTileRows, Shape::kOutputs, m.prefix);
  syncCluster();
  if (threadIdx.x < 128) {
    fewerRegisters<kProducerRegisters>();
    if (threadIdx.x < 32) copyTiles(p, weightMap, weightMap2, rowMap, work, m);
    else if (p.rowIndex) gatherRows(p, work, m);
  } else {
    moreRegisters<kMultiplierRegisters>();
    multiply(p, work.items(), m);
  }
  syncCluster();  // the other block may still send weights here, or say that it has read its own
#endif
}

/// False: not launched, since there are too many groups for a block's shared memory, or more multiprocessors than maps.
template <class Shape>
bool launchMany(const CudaContext& context, const GemmProblem& p) {
  const int64_t k = depthOf(p), outputs = outputsOf(p), sharedBytes = Shape::sharedBytes(p);
  if (sharedBytes > context.sharedBytes || context.multiprocessors > kMostMultiprocessors) return false;
  const auto weightMap = [&](const void* data) { return matrixMap(data, 2, outputs, k, 2 * k, Shape::kBox, kDepth, kRowBytes); };
  const TensorMap first = weightMap(p.groupStart ? p.x.data : p.weight.data);  // of a group's matrices all but the address
  const TensorMap second = Shape::kDual && !p.groupStart ? weightMap(p.weight2.data) : first;
  const TensorMap rowMap = matrixMap(p.x.data, 2, p.capacity, k, 2 * p.xStride, kUnit, kDepth, kRowBytes);
  const int64_t clusters = std::min<int64_t>(mostItems(p, Shape::kTileRows, Shape::kOutputs), context.multiprocessors / kCluster);
  const LaunchShape shape{dim3(static_cast<unsigned>(kCluster * clusters)), kThreads, static_cast<size_t>(sharedBytes), kCluster};
  launch(context, gemmMany<Shape>, shape, p, first, second, rowMap);
  return true;
}

}  // namespace longcat::cuda::many
