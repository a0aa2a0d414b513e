// mla_prefill on a GPU: attention of one round in float32 arithmetic, for any sizes: each score is one chain along the head's width, each
// output one chain along the keys. A block takes 16 query positions of one sequence and one head; unnormalised outputs are in `accumulator`.
#pragma once

#include <math_constants.h>

#include "cuda/dependent.cuh"
#include "cuda/numbers.cuh"
#include "ops/mla_prefill/prompts.cuh"

namespace longcat::cuda::prefill {

constexpr int kPlainThreads = 256, kPlainRows = 16, kPlainKeys = 64, kPlainChunk = 32, kPlainRowStride = 20;  // floats: whole vectors, few bank conflicts
static_assert(kKeyTile % kPlainKeys == 0 && kPlainKeys % kPlainRows == 0 && kPlainThreads == 4 * kPlainKeys && kPlainRows == 2 * (kPlainThreads / 32));

struct PlainShared {
  float queries[kPlainChunk][kPlainRowStride];  // a chunk of the head's width, transposed
  float weights[kPlainKeys][kPlainRowStride];     // scores, then exp(score − maximum), transposed
  float keys[kPlainChunk][kPlainKeys + 1];        // a chunk of the head's width, transposed
  float maximum[kPlainRows], total[kPlainRows], factor[kPlainRows];
  int32_t cacheRow[kPlainKeys];
};

/// weights[key][row] = scaled score, −inf beyond a row's own position. A thread has one key and 4 rows.
template <class T>
__device__ void scorePlain(const MlaPrefillParams& p, const QueryTile& tile, int head, int keyTile, const T* expanded, PlainShared& shared) {
  const int width = static_cast<int>(p.nope + p.rope), d = threadIdx.x % kPlainChunk;
  const int key = threadIdx.x % kPlainKeys, firstRow = threadIdx.x / kPlainKeys * 4;
  const T* queries = static_cast<const T*>(p.q.data);
  const T* cache = static_cast<const T*>(p.cache.data);
  float sums[4] = {};
  for (int first = 0; first < width; first += kPlainChunk) {
    const int column = first + d;
    __syncthreads();  // the chunk before has been used, and cacheRow is there
    for (int r = threadIdx.x / kPlainChunk; r < kPlainRows; r += kPlainThreads / kPlainChunk) {
      const int position = tile.base + r;
      shared.queries[d][r] = column < width && tile.has(position) ? floatOf(queries[(tile.row(position) * p.heads + head) * width + column]) : 0.0f;
    }
    for (int j = threadIdx.x / kPlainChunk; j < kPlainKeys; j += kPlainThreads / kPlainChunk) {
      float value = 0;
      if (column < p.nope) value = floatOf(expanded[j * p.kvB.rows + column]);
      else if (column < width) value = floatOf(cache[shared.cacheRow[j] * (p.kvRank + p.rope) + p.kvRank + (column - p.nope)]);
      shared.keys[d][j] = value;
    }
    __syncthreads();
#pragma unroll 8
    for (int c = 0; c < kPlainChunk; ++c) {
      const float k = shared.keys[c][key];
      const float4 q = *reinterpret_cast<const float4*>(&shared.queries[c][firstRow]);
      sums[0] = fmaf(q.x, k, sums[0]), sums[1] = fmaf(q.y, k, sums[1]), sums[2] = fmaf(q.z, k, sums[2]), sums[3] = fmaf(q.w, k, sums[3]);
    }
  }
  for (int i = 0; i < 4; ++i) {
    const bool seen = keyTile * kPlainKeys + key <= tile.base + firstRow + i;
    shared.weights[key][firstRow + i] = seen ? sums[i] * p.softmaxScale : -CUDART_INF_F;
  }
}

/// Scores to weights, and each row's maximum, sum and factor of what was summed before. A warp has two rows.
__device__ inline void weighPlain(PlainShared& shared) {
  const int lane = threadIdx.x & 31;
  for (int r = threadIdx.x / 32 * 2, end = r + 2; r < end; ++r) {
    const float a = shared.weights[lane][r], b = shared.weights[lane + 32][r], before = shared.maximum[r];
    const float most = fmaxf(before, warpMax(fmaxf(a, b)));
    const float weightA = expf(a - most), weightB = expf(b - most);
    shared.weights[lane][r] = weightA;
    shared.weights[lane + 32][r] = weightB;
    const float sum = warpSum(weightA + weightB), factor = expf(before - most);
    __syncwarp();  // every lane has read the maximum
    if (lane == 0) {
      shared.maximum[r] = most;
      shared.factor[r] = factor;
      shared.total[r] = shared.total[r] * factor + sum;
    }
    __syncwarp();
  }
}

/// Adds weight · value of the tile's first `keys` keys. A thread has one column at a time, and 8 rows.
template <class T>
__device__ void sumPlain(const MlaPrefillParams& p, const QueryTile& tile, int head, const T* values, int keys, bool fresh, bool finished,
                         const PlainShared& shared) {
  const int firstRow = threadIdx.x / 128 * 8;
  T* out = static_cast<T*>(p.out.data);
  for (int column = threadIdx.x % 128; column < p.vDim; column += 128) {
    float sums[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int position = tile.base + firstRow + i;
      const bool load = !fresh && tile.has(position);
      sums[i] = load ? p.accumulator[(tile.row(position) * p.heads + head) * p.vDim + column] * shared.factor[firstRow + i] : 0.0f;
    }
    const T* value = values + column;
    for (int j = 0; j < keys; ++j, value += p.kvB.rows) {
      const float v = floatOf(*value);
      const float4 low = *reinterpret_cast<const float4*>(&shared.weights[j][firstRow]);
      const float4 high = *reinterpret_cast<const float4*>(&shared.weights[j][firstRow + 4]);
      sums[0] = fmaf(low.x, v, sums[0]), sums[1] = fmaf(low.y, v, sums[1]), sums[2] = fmaf(low.z, v, sums[2]), sums[3] = fmaf(low.w, v, sums[3]);
      sums[4] = fmaf(high.x, v, sums[4]), sums[5] = fmaf(high.y, v, sums[5]), sums[6] = fmaf(high.z, v, sums[6]), sums[7] = fmaf(high.w, v, sums[7]);
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int position = tile.base + firstRow + i;
      if (!tile.has(position)) continue;
      const int64_t to = (tile.row(position) * p.heads + head) * p.vDim + column;
      if (finished) out[to] = numberOf<T>(sums[i] / shared.total[firstRow + i]);
      else p.accumulator[to] = sums[i];
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kPlainThreads) attendPlain(const MlaPrefillParams p, const Round round) {
  awaitPrevious();
  __shared__ __align__(16) PlainShared shared;
  const Live live = liveOf(p);
  const int tiles = countTiles(p, live, QueryTiles<kPlainRows>{round});
  const int work = tiles * static_cast<int>(p.heads);
  for (int w = blockIdx.x; w < work; w += gridDim.x) {
    const int head = w / tiles;
    const QueryTile tile = queryTile<kPlainRows>(p, live, round, w % tiles);
    const int position = tile.base + static_cast<int>(threadIdx.x), lastTile = tile.base / kPlainKeys;  // all rows of the tile have one last key tile
    const bool owner = threadIdx.x < kPlainRows, known = owner && tile.fromKey > 0 && tile.has(position);
    float* state = p.state + (owner && tile.has(position) ? (tile.row(position) * p.heads + head) * 2 : 0);
    __syncthreads();  // the work before has used the shared memory
    if (owner) {
      shared.maximum[threadIdx.x] = known ? state[0] : -CUDART_INF_F;
      shared.total[threadIdx.x] = known ? state[1] : 0.0f;
    }
    for (int key = tile.fromKey; key < tile.toKey; key += kPlainKeys) {
      const int t = key / kPlainKeys;
      const T* expanded = static_cast<T*>(p.expanded.data) + (tile.firstKey + key) * p.kvB.rows + head * (p.nope + p.vDim);
      if (threadIdx.x < kPlainKeys) shared.cacheRow[threadIdx.x] = roundCacheRows(p)[tile.firstKey + key + threadIdx.x];
      scorePlain(p, tile, head, t, expanded, shared);
      __syncthreads();
      weighPlain(shared);
      __syncthreads();
      const int seen = min(kPlainKeys, min(tile.base + kPlainRows, tile.span.keys) - key);
      sumPlain(p, tile, head, expanded + p.nope, seen, t == 0, t == lastTile, shared);
      // The next tile's scores are written behind scorePlain's barriers.
    }
    if (owner && tile.has(position) && tile.toKey <= lastTile * kPlainKeys) state[0] = shared.maximum[threadIdx.x], state[1] = shared.total[threadIdx.x];
  }
}

}  // namespace longcat::cuda::prefill
