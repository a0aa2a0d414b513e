// mla_prefill on a GPU: attention of one round by tensor cores, bf16 (FlashAttention-2's scheme: Dao, 2023).
// A block takes 128 query positions of one sequence and one head; each of its 4 warps has 32 of them. Scores, maximum, sum and output
// are float32; the weights exp(score − maximum) are rounded to bf16 for the product with the values, not for their sum.
//
// A row's place in its tile follows from its position, a warp's rows lie in one key tile's range, and a warp leaves alone key tiles
// that its rows may not see at all: so a row meets the same instructions however the prompt is cut.
#pragma once

#include <math_constants.h>

#include "cuda/dependent.cuh"
#include "cuda/mma.cuh"
#include "cuda/numbers.cuh"
#include "ops/mla_prefill/prompts.cuh"

namespace longcat::cuda::prefill {

constexpr int kAttendThreads = 128, kAttendRows = 128, kWarpRows = 32;
constexpr int kKeys = 64;                                        // of a tile in shared memory
constexpr int kDepth = 192, kWidth = 128;                        // most of nope + rope, and of v: smaller heads are filled up with zeros
constexpr int kDepthChunks = kDepth / 8, kWidthChunks = kWidth / 8;  // of 16 bytes
static_assert(kKeyTile % kKeys == 0 && kKeys % kWarpRows == 0 && kAttendThreads == 2 * kKeys);

struct AttendShared {
  Bf16 queries[kAttendRows * kDepth];  // chunks of 8 numbers, swizzled within a row
  Bf16 keys[kKeys * kDepth];
  Bf16 values[kKeys * kWidth];
  int32_t cacheRow[2][kKeys];          // of this key tile and the next
  QueryTile tile;                      // the block's work: here rather than in every thread's registers
  int head;
};

template <int kChunks>
__device__ __forceinline__ int attendPlace(int row, int chunk) { return row * kChunks * 8 + ((chunk ^ (row & 7)) << 3); }

/// Sizes of a head: constants where the model has the usual ones.
template <bool kUsual>
struct HeadShape {
  int nope, rope, v;
  __device__ explicit HeadShape(const MlaPrefillParams& p)
      : nope(kUsual ? 128 : static_cast<int>(p.nope)), rope(kUsual ? 64 : static_cast<int>(p.rope)), v(kUsual ? 128 : static_cast<int>(p.vDim)) {}
  __device__ int queryWidth() const { return kUsual ? kDepth : nope + rope; }
  __device__ int valueWidth() const { return kUsual ? kWidth : v; }
};

template <bool kUsual>
__device__ __forceinline__ void copyQueries(const MlaPrefillParams& p, const HeadShape<kUsual>& shape, const QueryTile& tile, int head, AttendShared& shared) {
  const Bf16* queries = static_cast<const Bf16*>(p.q.data);
#pragma unroll 4
  for (int i = threadIdx.x; i < kAttendRows * kDepthChunks; i += kAttendThreads) {
    const int row = i / kDepthChunks, chunk = i % kDepthChunks, position = tile.base + row;
    const bool there = tile.has(position) && chunk * 8 < shape.queryWidth();
    const Bf16* from = there ? queries + (tile.row(position) * p.heads + head) * shape.queryWidth() + chunk * 8 : queries;
    copyAsync16(shared.queries + attendPlace<kDepthChunks>(row, chunk), from, there);
  }
}

/// Keys of a tile: their own part out of `expanded` (`from`: the tile's first row, this head), the rotated part out of the cache.
template <bool kUsual>
__device__ __forceinline__ void copyKeys(const MlaPrefillParams& p, const HeadShape<kUsual>& shape, const Bf16* from, const int32_t* cacheRow, Bf16* to) {
  const Bf16* cache = static_cast<const Bf16*>(p.cache.data);
  const int64_t stride = p.kvB.rows, cacheStride = p.kvRank + p.rope;
  if constexpr (kUsual) {
    constexpr int kNopeChunks = 16, kRopeChunks = 8;
#pragma unroll
    for (int i = 0; i < kKeys * kNopeChunks / kAttendThreads; ++i) {
      const int key = threadIdx.x / kNopeChunks + i * (kAttendThreads / kNopeChunks), chunk = threadIdx.x % kNopeChunks;
      copyAsync16(to + attendPlace<kDepthChunks>(key, chunk), from + key * stride + chunk * 8);
    }
#pragma unroll
    for (int i = 0; i < kKeys * kRopeChunks / kAttendThreads; ++i) {
      const int key = threadIdx.x / kRopeChunks + i * (kAttendThreads / kRopeChunks), chunk = threadIdx.x % kRopeChunks;
      copyAsync16(to + attendPlace<kDepthChunks>(key, kNopeChunks + chunk), cache + cacheRow[key] * cacheStride + p.kvRank + chunk * 8);
    }
  } else {
    for (int i = threadIdx.x; i < kKeys * kDepthChunks; i += kAttendThreads) {
      const int key = i / kDepthChunks, chunk = i % kDepthChunks, column = chunk * 8;
      const bool own = column < shape.nope, rotated = !own && column < shape.queryWidth();
      const Bf16* source = own ? from + key * stride + column : rotated ? cache + cacheRow[key] * cacheStride + p.kvRank + (column - shape.nope) : cache;
      copyAsync16(to + attendPlace<kDepthChunks>(key, chunk), source, own || rotated);
    }
  }
}

template <bool kUsual>
__device__ __forceinline__ void copyValues(const MlaPrefillParams& p, const HeadShape<kUsual>& shape, const Bf16* from, Bf16* to) {
  const int64_t stride = p.kvB.rows;
  const int chunk = threadIdx.x % kWidthChunks;
  const bool there = chunk * 8 < shape.valueWidth();
#pragma unroll
  for (int i = 0; i < kKeys * kWidthChunks / kAttendThreads; ++i) {
    const int key = threadIdx.x / kWidthChunks + i * (kAttendThreads / kWidthChunks);
    copyAsync16(to + attendPlace<kWidthChunks>(key, chunk), there ? from + key * stride + shape.nope + chunk * 8 : from, there);
  }
}

/// What a warp has of its 32 rows; a thread has 4 of them (index [m][half]: row 16 m + 8 half + lane / 4), a quarter of their columns.
struct RowSums {
  float output[2][kWidth / 8][4];
  float maximum[2][2], total[2][2];
};
using Scores = float[2][kKeys / 8][4];

/// scores = queries · keysᵀ, unscaled.
__device__ __forceinline__ void scoreTile(const AttendShared& shared, int warpRow, Scores& scores) {
  const int lane = threadIdx.x & 31;
#pragma unroll
  for (int m = 0; m < 2; ++m)
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) scores[m][n][e] = 0;
#pragma unroll
  for (int step = 0; step < kDepth / 16; ++step) {
    uint32_t a[2][4];
#pragma unroll
    for (int m = 0; m < 2; ++m)
      loadMatrix4(a[m], shared.queries + attendPlace<kDepthChunks>(warpRow + m * 16 + lane % 16, step * 2 + lane / 16));
#pragma unroll
    for (int n = 0; n < kKeys / 16; ++n) {
      uint32_t b[4];
      loadMatrix4(b, shared.keys + attendPlace<kDepthChunks>(n * 16 + lane / 16 * 8 + lane % 8, step * 2 + lane / 8 % 2));
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        mma16816(scores[m][2 * n], a[m], b[0], b[1]);
        mma16816(scores[m][2 * n + 1], a[m], b[2], b[3]);
      }
    }
  }
}

/// Keys beyond a row's own position; `ahead`: position of the warp's first row less that of the tile's first key.
__device__ __forceinline__ void maskScores(int ahead, Scores& scores) {
  const int lane = threadIdx.x & 31;
#pragma unroll
  for (int m = 0; m < 2; ++m)
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e)
        if (n * 8 + lane % 4 * 2 + e % 2 > ahead + m * 16 + e / 2 * 8 + lane / 4) scores[m][n][e] = -CUDART_INF_F;
}

/// Scores become weights 2^((score − maximum) · scale); what was summed before is scaled to the new maximum. Every row sees a key.
__device__ __forceinline__ void weighTile(float scale, Scores& scores, RowSums& rows) {
#pragma unroll
  for (int m = 0; m < 2; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float most = rows.maximum[m][half];
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n) most = fmaxf(most, fmaxf(scores[m][n][half * 2], scores[m][n][half * 2 + 1]));
      most = fmaxf(most, __shfl_xor_sync(kAllLanes, most, 1));
      most = fmaxf(most, __shfl_xor_sync(kAllLanes, most, 2));
      const float factor = powerOfTwo((rows.maximum[m][half] - most) * scale), shift = -most * scale;
      rows.maximum[m][half] = most;
      float sum = 0;
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
        for (int e = half * 2; e < half * 2 + 2; ++e) {
          scores[m][n][e] = powerOfTwo(fmaf(scores[m][n][e], scale, shift));
          sum += scores[m][n][e];
        }
      sum += __shfl_xor_sync(kAllLanes, sum, 1);
      sum += __shfl_xor_sync(kAllLanes, sum, 2);
      rows.total[m][half] = fmaf(rows.total[m][half], factor, sum);
      if (__any_sync(kAllLanes, factor != 1.0f)) {  // a product with 1 changes nothing: other rows do not matter
#pragma unroll
        for (int n = 0; n < kWidth / 8; ++n) {
          rows.output[m][n][half * 2] *= factor;
          rows.output[m][n][half * 2 + 1] *= factor;
        }
      }
    }
}

/// output += weights · values.
__device__ __forceinline__ void sumTile(const AttendShared& shared, const Scores& weights, RowSums& rows) {
  const int lane = threadIdx.x & 31;
#pragma unroll
  for (int step = 0; step < kKeys / 16; ++step) {
    uint32_t a[2][4];
#pragma unroll
    for (int m = 0; m < 2; ++m)
#pragma unroll
      for (int i = 0; i < 4; ++i) a[m][i] = bf16Pair(weights[m][2 * step + i / 2][i % 2 * 2], weights[m][2 * step + i / 2][i % 2 * 2 + 1]);
#pragma unroll
    for (int n = 0; n < kWidth / 16; ++n) {
      uint32_t b[4];
      loadMatrix4Transposed(b, shared.values + attendPlace<kWidthChunks>(step * 16 + lane / 8 % 2 * 8 + lane % 8, n * 2 + lane / 16));
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        mma16816(rows.output[m][2 * n], a[m], b[0], b[1]);
        mma16816(rows.output[m][2 * n + 1], a[m], b[2], b[3]);
      }
    }
  }
}

/// What an earlier round left of the rows, or nothing yet.
template <bool kUsual>
__device__ __forceinline__ void beginRows(const MlaPrefillParams& p, const HeadShape<kUsual>& shape, const QueryTile& tile, int head, int firstPosition,
                                          bool fresh, RowSums& rows) {
  const int lane = threadIdx.x & 31;
#pragma unroll
  for (int m = 0; m < 2; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int position = firstPosition + m * 16 + half * 8 + lane / 4;
      const bool load = !fresh && tile.has(position);
      const int64_t index = load ? tile.row(position) * p.heads + head : 0;
      rows.maximum[m][half] = load ? p.state[index * 2] : -CUDART_INF_F;
      rows.total[m][half] = load ? p.state[index * 2 + 1] : 0.0f;
#pragma unroll
      for (int n = 0; n < kWidth / 8; ++n) {
        const int column = n * 8 + lane % 4 * 2;
        const bool inside = load && column < shape.valueWidth();
        const float2 value = inside ? *reinterpret_cast<const float2*>(p.accumulator + index * shape.valueWidth() + column) : float2{0, 0};
        rows.output[m][n][half * 2] = value.x;
        rows.output[m][n][half * 2 + 1] = value.y;
      }
    }
}

/// Writes `out` where the rows have met their last key; keeps them for the next round otherwise.
template <bool kUsual>
__device__ __forceinline__ void endRows(const MlaPrefillParams& p, const HeadShape<kUsual>& shape, const QueryTile& tile, int head, int firstPosition,
                                        bool finished, const RowSums& rows) {
  const int lane = threadIdx.x & 31;
  Bf16* out = static_cast<Bf16*>(p.out.data);
#pragma unroll
  for (int m = 0; m < 2; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int position = firstPosition + m * 16 + half * 8 + lane / 4;
      if (!tile.has(position)) continue;
      const int64_t index = tile.row(position) * p.heads + head;
      const float inverse = 1.0f / rows.total[m][half];
      if (!finished && lane % 4 == 0) *reinterpret_cast<float2*>(p.state + index * 2) = {rows.maximum[m][half], rows.total[m][half]};
#pragma unroll
      for (int n = 0; n < kWidth / 8; ++n) {
        const int column = n * 8 + lane % 4 * 2;
        if (column >= shape.valueWidth()) break;
        const float low = rows.output[m][n][half * 2], high = rows.output[m][n][half * 2 + 1];
        const int64_t to = index * shape.valueWidth() + column;
        if (finished) *reinterpret_cast<uint32_t*>(out + to) = bf16Pair(low * inverse, high * inverse);
        else *reinterpret_cast<float2*>(p.accumulator + to) = {low, high};
      }
    }
}

/// One query tile and head through the round's key tiles. Every thread calls.
template <bool kUsual>
__device__ __forceinline__ void attendTile(const MlaPrefillParams& p, const HeadShape<kUsual>& shape, AttendShared& shared) {
  const QueryTile& tile = shared.tile;
  const int head = shared.head;
  const int firstPosition = tile.base + static_cast<int>(threadIdx.x / 32) * kWarpRows, lastTile = firstPosition / kKeys;
  const int fromTile = tile.fromKey / kKeys, toTile = (tile.toKey + kKeys - 1) / kKeys;
  const bool busy = firstPosition < tile.span.keys && firstPosition + kWarpRows > tile.span.firstPosition && fromTile <= lastTile;
  const int endTile = busy ? min(toTile, lastTile + 1) : fromTile;  // of this warp
  const int64_t stride = p.kvB.rows;
  const float scale = p.softmaxScale * CUDART_L2E_F;
  const Bf16* from = static_cast<Bf16*>(p.expanded.data) + (tile.firstKey + tile.fromKey) * stride + head * (shape.nope + shape.v);
  const int32_t* cacheRows = roundCacheRows(p) + tile.firstKey;

  shared.cacheRow[threadIdx.x / kKeys][threadIdx.x % kKeys] = cacheRows[tile.fromKey + threadIdx.x];  // at least two tiles are listed
  __syncthreads();
  copyQueries(p, shape, tile, head, shared);
  copyKeys(p, shape, from, shared.cacheRow[0], shared.keys);
  commitCopies();
  RowSums rows;
  beginRows(p, shape, tile, head, firstPosition, fromTile == 0 || !busy, rows);
  for (int t = fromTile; t < toTile; ++t, from += kKeys * stride) {
    const int turn = (t - fromTile) & 1;
    waitCopies<0>();
    __syncthreads();  // this tile's keys are there, and the values of the tile before have been used by all
    copyValues(p, shape, from, shared.values);
    commitCopies();
    int nextRow = 0;  // looked up long before it is needed
    if (t + 2 < toTile && threadIdx.x < kKeys) nextRow = cacheRows[(t + 2) * kKeys + threadIdx.x];
    Scores scores;
    if (t < endTile) scoreTile(shared, firstPosition - tile.base, scores);
    waitCopies<0>();
    __syncthreads();  // the values are there, and the keys have been used by all
    if (t + 1 < toTile) copyKeys(p, shape, from + kKeys * stride, shared.cacheRow[turn ^ 1], shared.keys);
    commitCopies();
    if (threadIdx.x < kKeys) shared.cacheRow[turn][threadIdx.x] = nextRow;  // all have issued the copies of this tile's keys
    if (t < endTile) {
      if (t == lastTile) maskScores(firstPosition - t * kKeys, scores);
      weighTile(scale, scores, rows);
      sumTile(shared, scores, rows);
    }
  }
  if (fromTile < endTile) endRows(p, shape, tile, head, firstPosition, endTile == lastTile + 1, rows);
}

/// Blocks take (head, query tile) pairs, all tiles of a head before the next head's, so that its keys and values stay in the L2 cache.
template <bool kUsual>
__global__ void __launch_bounds__(kAttendThreads, 2) attendTensorCores(const MlaPrefillParams p, const Round round) {
  awaitPrevious();
  extern __shared__ __align__(128) unsigned char attendShared[];
  auto& shared = *reinterpret_cast<AttendShared*>(attendShared);
  const HeadShape<kUsual> shape(p);
  const Live live = liveOf(p);
  const int tiles = countTiles(p, live, QueryTiles<kAttendRows>{round});
  const int work = tiles * static_cast<int>(p.heads);
  for (int w = blockIdx.x; w < work; w += gridDim.x) {
    const QueryTile tile = queryTile<kAttendRows>(p, live, round, w % tiles);
    __syncthreads();  // the tile before has used the shared memory
    if (threadIdx.x == 0) {
      shared.tile = tile;
      shared.head = w / tiles;
    }
    __syncthreads();
    attendTile(p, shape, shared);
  }
}

}  // namespace longcat::cuda::prefill
