// mla_prefill on a GPU: the keys and values of one round. expanded[row][o] = Σ_k cache[row's latent][k] · W_kvb[o][k].
// A sum goes over k in ascending order: through tensor cores in steps of 16, FP8 promoted with its scale every 128, or one by one.
#pragma once

#include "cuda/dependent.cuh"
#include "cuda/mma.cuh"
#include "cuda/numbers.cuh"
#include "ops/mla_prefill/prompts.cuh"

namespace longcat::cuda::prefill {

constexpr int kExpandThreads = 256;
constexpr int kExpandRows = 128, kExpandColumns = 128, kExpandDepth = 64, kExpandStages = 3;
constexpr int kExpandChunks = kExpandDepth / 8;  // of 16 bytes, in a row of a stage
constexpr int kPlainTile = 64, kPlainDepth = 32;
static_assert(kExpandRows == 2 * kKeyTile && kPlainTile == kKeyTile && kExpandColumns == kFp8Block && kFp8Block == 2 * kExpandDepth);

struct ExpandStage {
  Bf16 latents[kExpandRows * kExpandDepth];     // chunks of 8 numbers, swizzled within a row
  Bf16 weights[kExpandColumns * kExpandDepth];
};
constexpr size_t kExpandShared = kExpandStages * sizeof(ExpandStage);

/// How many key tiles the round has.
__device__ inline int roundTiles(const MlaPrefillParams& p, const Live& live, const Round& round) {
  return min(countTiles(p, live, KeyTiles{}) - round.firstTile, round.tiles);
}

/// Cache row of key number `key` of the round's tile `tile` (−1: none, it counts as zero). Whole warps call, with one tile each.
__device__ inline int roundCacheRow(const MlaPrefillParams& p, const Live& live, const Round& round, int tile, int tiles, int key) {
  if (tile >= tiles) return -1;
  const Found found = findTile(p, live, round.firstTile + tile, KeyTiles{});
  if (found.sequence < 0) return -1;
  return cacheRowOf(p, p.seqSlot[found.sequence], found.tile * static_cast<int>(kKeyTile) + key, found.span.keys);
}

__device__ __forceinline__ int expandPlace(int row, int chunk) { return row * kExpandDepth + ((chunk ^ (row & 7)) << 3); }

/// A stage's latent rows: asynchronous.
__device__ __forceinline__ void copyLatents(const MlaPrefillParams& p, const int32_t* cacheRow, int depth, Bf16* to) {
  const Bf16* cache = static_cast<const Bf16*>(p.cache.data);
  const int chunk = threadIdx.x % kExpandChunks, k = depth + chunk * 8;
#pragma unroll
  for (int i = 0; i < kExpandRows * kExpandChunks / kExpandThreads; ++i) {
    const int row = threadIdx.x / kExpandChunks + i * (kExpandThreads / kExpandChunks);
    const int source = cacheRow[row];
    const bool there = source >= 0 && k < p.kvRank;
    copyAsync16(to + expandPlace(row, chunk), there ? cache + source * (p.kvRank + p.rope) + k : cache, there);
  }
}

/// A stage's rows of W_kvb. bf16 goes asynchronously; FP8 rests in registers until put() writes it as bf16.
template <class W>
struct WeightCopy;

template <>
struct WeightCopy<Bf16> {
  __device__ __forceinline__ void get(const MlaPrefillParams& p, int column, int depth, Bf16* to) {
    const Bf16* weights = static_cast<const Bf16*>(p.kvB.data);
    const int chunk = threadIdx.x % kExpandChunks, k = depth + chunk * 8;
#pragma unroll
    for (int i = 0; i < kExpandColumns * kExpandChunks / kExpandThreads; ++i) {
      const int row = threadIdx.x / kExpandChunks + i * (kExpandThreads / kExpandChunks);
      const bool there = column + row < p.kvB.rows && k < p.kvRank;
      copyAsync16(to + expandPlace(row, chunk), there ? weights + (column + row) * p.kvRank + k : weights, there);
    }
  }
  __device__ __forceinline__ void put(Bf16*) {}
};

template <>
struct WeightCopy<Fp8> {
  static constexpr int kPieces = kExpandDepth / 16;  // of 16 codes, in a row of a stage
  static constexpr int kEach = kExpandColumns * kPieces / kExpandThreads;
  uint4 codes[kEach];

  __device__ __forceinline__ void get(const MlaPrefillParams& p, int column, int depth, Bf16*) {
    const uint8_t* weights = static_cast<const uint8_t*>(p.kvB.data);
    const int k = depth + threadIdx.x % kPieces * 16;
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int row = threadIdx.x / kPieces + i * (kExpandThreads / kPieces);
      const bool there = column + row < p.kvB.rows && k < p.kvRank;
      codes[i] = there ? *reinterpret_cast<const uint4*>(weights + (column + row) * p.kvRank + k) : uint4{0, 0, 0, 0};
    }
  }
  __device__ __forceinline__ static uint4 widened(uint32_t low, uint32_t high) {
    return {bf16PairOfFp8(low & 0xffffu), bf16PairOfFp8(low >> 16), bf16PairOfFp8(high & 0xffffu), bf16PairOfFp8(high >> 16)};
  }
  __device__ __forceinline__ void put(Bf16* to) {
    const int piece = threadIdx.x % kPieces;
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int row = threadIdx.x / kPieces + i * (kExpandThreads / kPieces);
      *reinterpret_cast<uint4*>(to + expandPlace(row, 2 * piece)) = widened(codes[i].x, codes[i].y);
      *reinterpret_cast<uint4*>(to + expandPlace(row, 2 * piece + 1)) = widened(codes[i].z, codes[i].w);
    }
  }
};

/// A warp's 64 × 32 part of the tile.
using ExpandSums = float[4][4][4];

__device__ __forceinline__ void clear(ExpandSums& sums) {
#pragma unroll
  for (int m = 0; m < 4; ++m)
#pragma unroll
    for (int n = 0; n < 4; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) sums[m][n][e] = 0;
}

/// sums += this stage's product, in steps of 16 along k.
__device__ __forceinline__ void multiplyStage(const ExpandStage& stage, int warpRow, int warpColumn, ExpandSums& sums) {
  const int lane = threadIdx.x & 31;
#pragma unroll
  for (int step = 0; step < kExpandDepth / 16; ++step) {
    uint32_t a[4][4], b[2][4];
#pragma unroll
    for (int m = 0; m < 4; ++m) loadMatrix4(a[m], stage.latents + expandPlace(warpRow + m * 16 + lane % 16, step * 2 + lane / 16));
#pragma unroll
    for (int n = 0; n < 2; ++n)
      loadMatrix4(b[n], stage.weights + expandPlace(warpColumn + n * 16 + lane / 16 * 8 + lane % 8, step * 2 + lane / 8 % 2));
#pragma unroll
    for (int m = 0; m < 4; ++m)
#pragma unroll
      for (int n = 0; n < 4; ++n) mma16816(sums[m][n], a[m], b[n / 2][n % 2 * 2], b[n / 2][n % 2 * 2 + 1]);
  }
}

/// One tile of the round: 128 expanded rows (of which `rows` exist) by 128 rows of W_kvb from `column` on.
template <class W>
__device__ __forceinline__ void expandTile(const MlaPrefillParams& p, const int32_t* cacheRow, int64_t firstRow, int rows, int column, ExpandStage* stages) {
  constexpr bool kScaled = sizeof(W) == 1;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warpRow = warp / 4 * 64, warpColumn = warp % 4 * 32;
  const int steps = static_cast<int>((p.kvRank + kExpandDepth - 1) / kExpandDepth);
  WeightCopy<W> copy;
#pragma unroll
  for (int s = 0; s < kExpandStages - 1; ++s) {
    if (s < steps) {
      copyLatents(p, cacheRow, s * kExpandDepth, stages[s].latents);
      copy.get(p, column, s * kExpandDepth, stages[s].weights);
      copy.put(stages[s].weights);
    }
    commitCopies();
  }
  ExpandSums sums, total;
  clear(sums);
  if constexpr (kScaled) clear(total);
  for (int s = 0; s < steps; ++s) {
    waitCopies<kExpandStages - 2>();
    __syncthreads();  // stage s is there, and stage s - 1 has been used by all
    const int next = s + kExpandStages - 1;
    ExpandStage& nextStage = stages[next % kExpandStages];
    if (next < steps) {
      copyLatents(p, cacheRow, next * kExpandDepth, nextStage.latents);
      copy.get(p, column, next * kExpandDepth, nextStage.weights);
    }
    commitCopies();
    multiplyStage(stages[s % kExpandStages], warpRow, warpColumn, sums);
    if (next < steps) copy.put(nextStage.weights);
    if constexpr (kScaled) {
      if (s % 2 == 1 || s + 1 == steps) {
        const int64_t blocks = (p.kvRank + kFp8Block - 1) / kFp8Block;
        const float scale = p.kvB.scale[column / kFp8Block * blocks + s / 2];
#pragma unroll
        for (int m = 0; m < 4; ++m)
#pragma unroll
          for (int n = 0; n < 4; ++n)
#pragma unroll
            for (int e = 0; e < 4; ++e) total[m][n][e] = fmaf(sums[m][n][e], scale, total[m][n][e]);
        clear(sums);
      }
    }
  }
  const ExpandSums& result = kScaled ? total : sums;
  Bf16* expanded = static_cast<Bf16*>(p.expanded.data);
#pragma unroll
  for (int m = 0; m < 4; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = warpRow + m * 16 + half * 8 + lane / 4;
      if (row >= rows) continue;
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        const int o = column + warpColumn + n * 8 + lane % 4 * 2;
        if (o < p.kvB.rows)
          *reinterpret_cast<__nv_bfloat162*>(expanded + (firstRow + row) * p.kvB.rows + o) =
              __floats2bfloat162_rn(result[m][n][half * 2], result[m][n][half * 2 + 1]);
      }
    }
}

/// Persistent: each block takes neighbouring tiles, so that it seldom looks up rows.
template <class W>
__global__ void __launch_bounds__(kExpandThreads, sizeof(W) == 1 ? 1 : 2) expandTensorCores(const MlaPrefillParams p, const Round round) {
  awaitPrevious();
  extern __shared__ __align__(128) unsigned char expandShared[];
  __shared__ int32_t cacheRow[kExpandRows];
  auto* stages = reinterpret_cast<ExpandStage*>(expandShared);
  const Live live = liveOf(p);
  const int tiles = roundTiles(p, live, round);
  if (tiles <= 0) return;
  const int columnTiles = static_cast<int>((p.kvB.rows + kExpandColumns - 1) / kExpandColumns), work = (tiles + 1) / 2 * columnTiles;
  const int share = (work + gridDim.x - 1) / gridDim.x, end = min(work, (static_cast<int>(blockIdx.x) + 1) * share);
  int lastRowTile = -1;
  for (int w = blockIdx.x * share; w < end; ++w) {
    const int rowTile = w / columnTiles;
    __syncthreads();  // the tile before has used stages and rows
    if (rowTile != lastRowTile) {
      if (threadIdx.x < kExpandRows)
        cacheRow[threadIdx.x] = roundCacheRow(p, live, round, rowTile * 2 + threadIdx.x / kKeyTile, tiles, threadIdx.x % kKeyTile);
      lastRowTile = rowTile;
      __syncthreads();
    }
    const int rows = min(kExpandRows, tiles * static_cast<int>(kKeyTile) - rowTile * kExpandRows);
    expandTile<W>(p, cacheRow, static_cast<int64_t>(rowTile) * kExpandRows, rows, w % columnTiles * kExpandColumns, stages);
  }
}

/// Any sizes and dtypes, in float32.
template <class T>
__global__ void __launch_bounds__(kExpandThreads) expandPlain(const MlaPrefillParams p, const Round round) {
  awaitPrevious();
  __shared__ float latents[kPlainDepth][kPlainTile + 1], weights[kPlainDepth][kPlainTile + 1];
  __shared__ int32_t cacheRow[kPlainTile];
  const Live live = liveOf(p);
  const int tiles = roundTiles(p, live, round);
  const int columnTiles = static_cast<int>((p.kvB.rows + kPlainTile - 1) / kPlainTile);
  const int64_t blocks = (p.kvRank + kFp8Block - 1) / kFp8Block;
  const T* cache = static_cast<const T*>(p.cache.data);
  const int ownRow = threadIdx.x / 16, ownColumn = threadIdx.x % 16, k = threadIdx.x % kPlainDepth;
  for (int w = blockIdx.x; w < tiles * columnTiles; w += gridDim.x) {
    const int tile = w / columnTiles, column = w % columnTiles * kPlainTile;
    __syncthreads();
    if (threadIdx.x < kPlainTile) cacheRow[threadIdx.x] = roundCacheRow(p, live, round, tile, tiles, threadIdx.x);
    float sums[4][4] = {};
    for (int depth = 0; depth < p.kvRank; depth += kPlainDepth) {
      __syncthreads();
      const bool inside = depth + k < p.kvRank;
      for (int r = threadIdx.x / kPlainDepth; r < kPlainTile; r += kExpandThreads / kPlainDepth) {
        const int source = cacheRow[r];
        latents[k][r] = inside && source >= 0 ? floatOf(cache[source * (p.kvRank + p.rope) + depth + k]) : 0.0f;
        const int64_t o = column + r;
        float value = 0;
        if (inside && o < p.kvB.rows) {
          value = loadNumber(p.kvB.data, p.kvB.dtype, o * p.kvRank + depth + k);
          if (p.kvB.dtype == DType::f8e4m3) value *= p.kvB.scale[o / kFp8Block * blocks + (depth + k) / kFp8Block];
        }
        weights[k][r] = value;
      }
      __syncthreads();
      for (int d = 0; d < kPlainDepth; ++d) {
        float a[4], b[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) a[i] = latents[d][ownRow + 16 * i], b[i] = weights[d][ownColumn + 16 * i];
#pragma unroll
        for (int i = 0; i < 4; ++i)
#pragma unroll
          for (int j = 0; j < 4; ++j) sums[i][j] = fmaf(a[i], b[j], sums[i][j]);
      }
    }
    T* expanded = static_cast<T*>(p.expanded.data) + static_cast<int64_t>(tile) * kPlainTile * p.kvB.rows;
    for (int i = 0; i < 4; ++i)
      for (int j = 0; j < 4; ++j) {
        const int o = column + ownColumn + 16 * j;
        if (o < p.kvB.rows) expanded[(ownRow + 16 * i) * p.kvB.rows + o] = numberOf<T>(sums[i][j]);
      }
  }
}

}  // namespace longcat::cuda::prefill
