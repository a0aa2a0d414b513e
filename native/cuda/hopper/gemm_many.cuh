// Products of many rows on Hopper: persistent clusters of two blocks, in each a warpgroup that copies and two that multiply.
//
// An item is a tile of at most kRows rows × the weight rows of both blocks. Each block has 128 weight rows, 64 a warpgroup, as wgmma's A, and all
// of the tile's rows as its B: either block fetches half of them and sends them to both. Stages of 64 numbers of k pass through a ring in shared
// memory. The order of summation is gemm_formats.cuh's: a lane of k is a chain in the warpgroup's registers, and a finished lane is added to the
// total, which waits in other registers and, where those do not suffice, in shared memory.
//
// For SwiGLU a block's weight rows are eight of the gate, the same eight of the up matrix, and so on: a thread has both sums of an output.
#pragma once

#include "cuda/dependent.cuh"
#include "cuda/gemm_formats.cuh"
#include "cuda/gemm_work.cuh"
#include "cuda/hopper/cluster.cuh"
#include "cuda/hopper/copy.cuh"
#include "cuda/hopper/wgmma.cuh"

namespace longcat::cuda::many {

constexpr int kCluster = 2, kMultipliers = 2, kThreads = 128 * (kMultipliers + 1);
constexpr int kWeights = 64 * kMultipliers;        // weight rows of a block
constexpr int kDepth = 64, kRowBytes = 128;        // numbers of k in a stage, bytes of a row of them
constexpr int kBoxRows = 32;                       // rows that one copy fetches where they lie one after another
constexpr int kOctetBytes = 8 * kRowBytes;         // eight rows: what the swizzle repeats after
constexpr int kChunk = 64;                         // rows whose results are laid out for storing at once
constexpr int kChunkBytes = kChunk * 64 * 2;       // of a warpgroup's 64 outputs
constexpr int kSumRegisters = 184;                 // of a thread, for lanes and totals
constexpr int kProducerRegisters = 56, kMultiplierRegisters = 224;

template <bool kDual_, int kRows_>
struct Shape {
  static constexpr bool kDual = kDual_;
  static constexpr int kRows = kRows_;
  static constexpr int kOutputs = kDual ? kWeights / 2 : kWeights;  // of a block
  static constexpr int kWeightBytes = kWeights * kRowBytes, kStageBytes = kWeightBytes + kRows * kRowBytes;
  /// Of a warpgroup: totals that have no registers, then the results on their way out.
  static constexpr int kTotalBytes = kRows > kSumRegisters ? 128 * 4 * (kRows - kSumRegisters) : 0;
  static constexpr int kSpareBytes = kTotalBytes > kChunkBytes ? kTotalBytes : kChunkBytes;
  static constexpr int kStages = ((222 << 10) - kMultipliers * kSpareBytes) / kStageBytes;
  static int64_t sharedBytes(const GemmProblem& p) {
    return kStages * (kStageBytes + sizeof(int4) + 2 * sizeof(Barrier)) + kMultipliers * kSpareBytes + kRows * sizeof(int) + prefixBytes(p);
  }
};

/// A block's shared memory. `tiles`: with the first stage of an item comes what the item is (row, rows, the block's first output, group).
template <class Shape>
struct Memory {
  unsigned char *stages, *spare;
  int4* tiles;
  Barrier *full, *empty;
  int *sources, *prefix;

  __device__ explicit Memory(unsigned char* shared) {
    stages = shared;
    spare = stages + Shape::kStages * Shape::kStageBytes;
    tiles = reinterpret_cast<int4*>(spare + kMultipliers * Shape::kSpareBytes);
    full = reinterpret_cast<Barrier*>(tiles + Shape::kStages);
    empty = full + Shape::kStages;
    sources = reinterpret_cast<int*>(empty + Shape::kStages);
    prefix = sources + Shape::kRows;
  }
  __device__ unsigned char* weights(int stage) const { return stages + stage * Shape::kStageBytes; }
  __device__ unsigned char* rows(int stage) const { return weights(stage) + Shape::kWeightBytes; }
};

/// Columns of wgmma that a tile of so many rows takes.
__device__ __forceinline__ int widthOf(int rows) { return (rows + 63) / 64 * 64; }

/// The lane-0 thread of warp 0 copies weights, and rows where they lie one after another; of warps 1 and 2, rows by index.
template <class Shape>
__device__ __forceinline__ void produce(const GemmProblem& p, const TensorMap& weightMap, const TensorMap& rowMap, const Work& work, const Memory<Shape>& m) {
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, rank = static_cast<int>(rankInCluster());
  const bool gathers = p.rowIndex != nullptr;
  if (gathers ? warp > 2 : warp > 0) return;
  const uint64_t policy = usualPolicy();
  const int steps = static_cast<int>((depthOf(p) + kDepth - 1) / kDepth);
  RingPlace<Shape::kStages> place;
  for (int item = blockIdx.x / kCluster; item < work.items(); item += gridDim.x / kCluster) {
    const WorkItem tile = work.at(item);
    const int row = static_cast<int>(tile.row), rows = static_cast<int>(tile.rowEnd - tile.row);
    const int output = static_cast<int>(tile.output) + rank * Shape::kOutputs, half = widthOf(rows) / 2;
    if (warp == 0 && lane == 0) {
      const Matrix first = matrixOf(p, tile.group, false), second = matrixOf(p, tile.group, Shape::kDual);
      const int bytes = Shape::kWeightBytes + (gathers ? rows : 2 * half) * kRowBytes;
      for (int step = 0; step < steps; ++step, place.next()) {
        Barrier* full = m.full + place.stage;
        wait(m.empty + place.stage, place.phase ^ 1);
        if (step == 0) m.tiles[place.stage] = make_int4(row, rows, output, tile.group);
        arriveExpecting(full, bytes);
        unsigned char* to = m.weights(place.stage);
        if constexpr (Shape::kDual) {
#pragma unroll 2
          for (int octet = 0; octet < Shape::kOutputs / 8; ++octet) {
            copyBoxAnywhere(to + 2 * octet * kOctetBytes, &weightMap, full, first.data, step * kDepth, output + 8 * octet, policy);
            copyBoxAnywhere(to + (2 * octet + 1) * kOctetBytes, &weightMap, full, second.data, step * kDepth, output + 8 * octet, policy);
          }
        } else {
          copyBoxAnywhere(to, &weightMap, full, first.data, step * kDepth, output, policy);
        }
        if (gathers) continue;
        for (int r = rank * half; r < (rank + 1) * half; r += kBoxRows)
          copyBoxToAll(m.rows(place.stage) + r * kRowBytes, &rowMap, full, step * kDepth, row + r, (1 << kCluster) - 1, policy);
      }
    } else if (warp > 0) {
      const int begin = rank * half + (warp - 1) * half / 2, end = min(begin + half / 2, rows);
      __syncwarp();
      for (int r = begin + lane; r < end; r += 32) m.sources[r] = p.rowIndex[row + r];
      __syncwarp();
      if (lane > 0) continue;
      for (int step = 0; step < steps; ++step, place.next()) {
        wait(m.empty + place.stage, place.phase ^ 1);
#pragma unroll 4
        for (int r = begin; r < end; ++r)
          copyBoxToAll(m.rows(place.stage) + r * kRowBytes, &rowMap, m.full + place.stage, step * kDepth, m.sources[r], (1 << kCluster) - 1, policy);
      }
    }
  }
}

/// A multiplying warpgroup's place in the ring.
template <class Shape>
struct Consumer {
  const Memory<Shape>& m;
  RingPlace<Shape::kStages> place;
  int held = -1;  // the stage that products under way still read

  __device__ explicit Consumer(const Memory<Shape>& memory) : m(memory) {}
  __device__ __forceinline__ void await() { wait(m.full + place.stage, place.phase); }
  /// After the last products with this stage were issued: those before them are over.
  __device__ __forceinline__ void pass() {
    waitProducts<1>();
    giveBack();
    held = place.stage;
    place.next();
  }
  __device__ __forceinline__ void finish() {
    waitProducts<0>();
    giveBack();
  }

 private:
  /// Each warp tells both blocks, since either copies into the stage.
  __device__ __forceinline__ void giveBack() {
    const int lane = threadIdx.x & 31;
    if (held >= 0 && lane < kCluster) arriveAt(m.empty + held, lane);
    held = -1;
  }
};

/// sum = a lane of k: steps [begin, end) of 32 numbers, of `steps`. `warpgroup`: which 64 of the weight rows.
template <int kWidth, class Shape>
__device__ __forceinline__ void multiplyLane(float (&sum)[kWidth / 2], Consumer<Shape>& ring, int warpgroup, int begin, int end, int steps) {
  for (int step = begin; step < end;) {
    const int half = step & 1;  // of the stage
    if (half == 0) ring.await();
    const uint64_t a = rowsOfK(ring.m.weights(ring.place.stage) + warpgroup * 64 * kRowBytes + half * kRowBytes / 2);
    const uint64_t b = rowsOfK(ring.m.rows(ring.place.stage) + half * kRowBytes / 2);
    const bool whole = half == 0 && step + 1 < end;
    if (whole) {
      beginProducts();
#pragma unroll
      for (int i = 0; i < 4; ++i) productBf16<kWidth>(sum, a + 2 * i, b + 2 * i, i > 0 || step != begin);
      endProducts();
    } else {
      beginProducts();
#pragma unroll
      for (int i = 0; i < 2; ++i) productBf16<kWidth>(sum, a + 2 * i, b + 2 * i, i > 0 || step != begin);
      endProducts();
    }
    step += whole ? 2 : 1;
    if ((step & 1) == 0 || step == steps) ring.pass();
  }
  ring.finish();
  holdRegisters(sum);
}

/// The finished lanes' sum, ascending: what has no registers is in shared memory, 16 bytes a thread side by side.
template <int kSums>
struct Total {
  static constexpr int kOwn = kSums < kSumRegisters - kSums ? kSums : kSumRegisters - kSums;
  float own[kOwn] = {};
  float4* rest;

  __device__ explicit Total(unsigned char* spare) : rest(reinterpret_cast<float4*>(spare) + (threadIdx.x & 127)) {}
  __device__ __forceinline__ void add(const float (&sum)[kSums], bool first) {
#pragma unroll
    for (int i = 0; i < kOwn; ++i) own[i] = first ? sum[i] : own[i] + sum[i];
#pragma unroll
    for (int i = kOwn; i < kSums; i += 4) {
      float4 v = rest[(i - kOwn) / 4 * 128];
      v.x = first ? sum[i] : v.x + sum[i], v.y = first ? sum[i + 1] : v.y + sum[i + 1];
      v.z = first ? sum[i + 2] : v.z + sum[i + 2], v.w = first ? sum[i + 3] : v.w + sum[i + 3];
      rest[(i - kOwn) / 4 * 128] = v;
    }
  }
  __device__ __forceinline__ void finish(float (&sum)[kSums]) const {
#pragma unroll
    for (int i = 0; i < kOwn; ++i) sum[i] = own[i] + sum[i];
#pragma unroll
    for (int i = kOwn; i < kSums; i += 4) {
      const float4 v = rest[(i - kOwn) / 4 * 128];
      sum[i] = v.x + sum[i], sum[i + 1] = v.y + sum[i + 1], sum[i + 2] = v.z + sum[i + 2], sum[i + 3] = v.w + sum[i + 3];
    }
  }
};

/// Whether results can leave 16 bytes at a time.
__device__ __forceinline__ bool storesOctets(const GemmProblem& p) {
  return p.outDtype == DType::bf16 && outputsOf(p) % 8 == 0 && p.outStride % 8 == 0 && reinterpret_cast<uintptr_t>(p.out.data) % 16 == 0;
}

__device__ __forceinline__ uint32_t bf16Pair(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

/// Where the 16-byte piece `piece` of a row lies; kPieces to a row. Eight rows' equal pieces lie in different banks.
template <int kPieces>
__device__ __forceinline__ int layoutPlace(int row, int piece) {
  const int at = row * kPieces + piece, line = at >> 3;
  return line * 128 + (((at & 7) ^ (line & 7)) << 4);
}

/// Writes a warpgroup's results: outputs by rows as wgmma left them, through shared memory (kChunkBytes) where they leave as octets.
template <bool kDual, int kWidth>
__device__ __forceinline__ void storeTile(const GemmProblem& p, float (&sum)[kWidth / 2], const int4& tile, int warpgroup, unsigned char* spare) {
  constexpr int kPieces = kDual ? 4 : 8;  // octets of outputs
  const int thread = threadIdx.x & 127, warp = thread >> 5, lane = thread & 31, g = lane >> 2, q = lane & 3;
  const int first = tile.z + warpgroup * kPieces * 8;  // output
  const int outputs = static_cast<int>(outputsOf(p));
  if (!storesOctets(p)) {
#pragma unroll
    for (int i = 0; i < kWidth / 2; ++i) {
      if (kDual && i % 4 >= 2) continue;
      const int r = i / 4 * 8 + 2 * q + i % 2, output = first + (kDual ? warp * 8 + g : warp * 16 + i % 4 / 2 * 8 + g);
      if (r < tile.y && output < outputs) storeResult<kDual>(p, tile.x + r, output, sum[i], kDual ? sum[i + 2] : 0);
    }
    return;
  }
  if constexpr (kDual) {
#pragma unroll
    for (int i = 0; i < kWidth / 2; i += 4) {
      sum[i] = silu(sum[i]) * sum[i + 2];
      sum[i + 1] = silu(sum[i + 1]) * sum[i + 3];
    }
  } else if (p.bias.data) {
    float bias[2];
#pragma unroll
    for (int upper = 0; upper < 2; ++upper) {
      const int output = first + warp * 16 + upper * 8 + g;
      bias[upper] = output < outputs ? loadNumber(p.bias.data, p.bias.dtype, output) : 0;
    }
#pragma unroll
    for (int i = 0; i < kWidth / 2; ++i) sum[i] += bias[i % 4 / 2];
  }
#pragma unroll
  for (int chunk = 0; chunk < kWidth / kChunk; ++chunk) {
    syncSome(1 + warpgroup, 128);  // nobody reads what was there
#pragma unroll
    for (int j = 0; j < kChunk / 8; j += kDual ? 4 : 2) {  // eight rows each
      const float* s = sum + 4 * (chunk * kChunk / 8 + j);
      uint32_t pairs[4];
      int row, piece;  // that this lane gives the address of
      if constexpr (kDual) {
#pragma unroll
        for (int i = 0; i < 4; ++i) pairs[i] = bf16Pair(s[4 * i], s[4 * i + 1]);
        row = (j + lane / 8) * 8 + lane % 8, piece = warp;
      } else {
#pragma unroll
        for (int i = 0; i < 4; ++i) pairs[i] = bf16Pair(s[2 * i], s[2 * i + 1]);
        row = (j + lane / 16) * 8 + lane % 8, piece = 2 * warp + lane / 8 % 2;
      }
      storeMatrix4Transposed(spare + layoutPlace<kPieces>(row, piece), pairs);
    }
    syncSome(1 + warpgroup, 128);
#pragma unroll
    for (int i = 0; i < kChunk * kPieces / 128; ++i) {
      const int unit = thread + i * 128, row = unit / kPieces, piece = unit % kPieces, r = chunk * kChunk + row, output = first + piece * 8;
      if (r < tile.y && output < outputs) {
        const uint4 octet = *reinterpret_cast<const uint4*>(spare + layoutPlace<kPieces>(row, piece));
        *reinterpret_cast<uint4*>(static_cast<Bf16*>(p.out.data) + (tile.x + r) * p.outStride + output) = octet;
      }
    }
  }
  syncSome(1 + warpgroup, 128);
}

/// One item: its lanes of k, their total, and the results. All of a width's registers are named at compile time.
template <int kWidth, class Shape>
__device__ __forceinline__ void multiplyTile(const GemmProblem& p, Consumer<Shape>& ring, const int4& tile, int warpgroup) {
  unsigned char* spare = ring.m.spare + warpgroup * Shape::kSpareBytes;
  const int64_t k = depthOf(p);
  const int steps = static_cast<int>(k / Bf16Format::kStep), lanes = lanesOf(k);
  float sum[kWidth / 2] = {};
  Total<kWidth / 2> total(spare);
  for (int lane = 0; lane < lanes; ++lane) {
    multiplyLane<kWidth>(sum, ring, warpgroup, laneBegin(steps, lane, lanes), laneBegin(steps, lane + 1, lanes), steps);
    if (lane + 1 < lanes) total.add(sum, lane == 0);
    else if (lane > 0) total.finish(sum);
  }
  storeTile<Shape::kDual, kWidth>(p, sum, tile, warpgroup, spare);
}

template <class Shape>
__device__ __forceinline__ void multiply(const GemmProblem& p, int items, const Memory<Shape>& m) {
  const int warpgroup = threadIdx.x / 128 - 1;
  Consumer<Shape> ring(m);
  for (int item = blockIdx.x / kCluster; item < items; item += gridDim.x / kCluster) {
    ring.await();
    const int4 tile = m.tiles[ring.place.stage];
    const int width = widthOf(tile.y);
    if (width == 64) multiplyTile<64>(p, ring, tile, warpgroup);
    else if (width == 128) multiplyTile<128>(p, ring, tile, warpgroup);
    if constexpr (Shape::kRows == 256) {
      if (width == 192) multiplyTile<192>(p, ring, tile, warpgroup);
      else if (width == 256) multiplyTile<256>(p, ring, tile, warpgroup);
    }
  }
}

/// `rowTile`: rows of an item, at most kRows.
template <class Shape>
__global__ void __launch_bounds__(kThreads, 1)
gemmMany(const __grid_constant__ GemmProblem p, const __grid_constant__ TensorMap weightMap, const __grid_constant__ TensorMap rowMap, int rowTile) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(1024) unsigned char shared[];
  const Memory<Shape> m(shared);
  if (threadIdx.x == 0) {
    prefetchMap(&weightMap);
    prefetchMap(&rowMap);
    for (int stage = 0; stage < Shape::kStages; ++stage) {
      initBarrier(m.full + stage, 1);
      initBarrier(m.empty + stage, kCluster * kMultipliers * 4);
    }
    fenceBarriers();
  }
  awaitPrevious();
  const Work work(p, rowTile, kCluster * Shape::kOutputs, m.prefix);
  syncCluster();
  if (threadIdx.x < 128) {
    fewerRegisters<kProducerRegisters>();
    produce(p, weightMap, rowMap, work, m);
  } else {
    moreRegisters<kMultiplierRegisters>();
    multiply(p, work.items(), m);
  }
  __syncwarp();
  syncCluster();  // the other block may still send rows here, or say that it has read its own
#endif
}

template <class Shape>
void launchMany(const CudaContext& context, const GemmProblem& p, int rowTile) {
  const int64_t k = depthOf(p), outputs = outputsOf(p);
  const TensorMap weightMap = anywhereMap(2, outputs, k, 2 * k, Shape::kDual ? 8 : kWeights, kDepth, kRowBytes);
  const int64_t rowsOfX = p.rowIndex ? int64_t{1} << 31 : p.capacity;
  const TensorMap rowMap = matrixMap(p.x.data, 2, rowsOfX, k, 2 * p.xStride, p.rowIndex ? 1 : kBoxRows, kDepth, kRowBytes);
  const int clusters = static_cast<int>(std::min<int64_t>(mostItems(p, rowTile, kCluster * Shape::kOutputs), context.multiprocessors / kCluster));
  launchClusters<kCluster>(context, gemmMany<Shape>, kCluster * clusters, kThreads, Shape::sharedBytes(p), p, weightMap, rowMap, rowTile);
}

}  // namespace longcat::cuda::many
