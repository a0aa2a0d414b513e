// Split attention on tensor cores: bfloat16 queries and cache, or a packed cache, whose rows become bfloat16 on their way to shared memory. A block takes one split and 16, 32 or 64 heads (the rows of its matrix
// instructions); the split's cache rows come by asynchronous copies, kAttendKeys at a time, and serve both products from shared memory:
//   scores [heads, keys] = [q_lat | q_rope] · rowsᵀ,     latent [heads, kvRank] += exp(scores − max) · rows
//
// Order of sums, the same for any number of heads a block: a score is four chains along the row (the even and the odd steps of 16 of the
// lower and of the upper half of the row), ((even + odd) of the lower) + (the same of the upper); a latent's number and the sum of weights
// are chains along the keys in steps of 16, rescaled at each tile of kAttendKeys where the maximum grows. Weights are rounded to bfloat16
// for both.
#pragma once

#include "cuda/dependent.cuh"
#include "cuda/latents.cuh"
#include "cuda/mma.cuh"
#include "ops/mla_decode/live.cuh"

namespace longcat::cuda {
namespace {

constexpr int kAttendThreads = 256;
constexpr int kAttendKeys = 32;          // keys of a tile
constexpr int64_t kAttendMaxRank = 512;  // the latent sums live in registers

/// Elements from row to row in shared memory: whole groups of eight 16-byte chunks, within which chunks are exchanged by row.
__host__ __device__ constexpr int attendStride(int64_t width) { return static_cast<int>((width + 63) / 64 * 64); }

template <int MT, int STAGES>
constexpr size_t attendSharedBytes(int64_t width) {
  const size_t rows = 16 * MT, stride = static_cast<size_t>(attendStride(width)) * sizeof(Bf16);
  return (rows + STAGES * kAttendKeys) * stride + 2 * rows * kAttendKeys * sizeof(float) + rows * sizeof(float) + kSplitKeys * sizeof(int32_t);
}

/// Where chunk `chunk` (8 elements) of `row` lies: eight rows of a column of chunks fall in eight different groups of banks.
__device__ __forceinline__ int chunkAt(int row, int chunk, int stride) { return row * stride + ((chunk ^ (row & 7)) << 3); }

/// Two 8×8 matrices; lane l < 16 gives the address of row l%8 of matrix l/8.
__device__ __forceinline__ void loadMatrix2(uint32_t (&r)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];\n" : "=r"(r[0]), "=r"(r[1]) : "r"(sharedAddress(row)) : "memory");
}

template <int MT, bool PACKED>
struct AttendBlock {
  static constexpr int kRows = 16 * MT;                    // heads
  static constexpr int kQM = MT == 4 ? 2 : 1;              // scores of a warp: kQM × 16 heads,
  static constexpr int kQN = MT == 1 ? 1 : 2;              // kQN × 8 keys, half of the row's length
  static constexpr int kColumnWarps = 8 / MT;              // latents of a warp: 16 heads, pairs of 8 columns, every kColumnWarps-th
  static constexpr int kPairs = static_cast<int>(kAttendMaxRank) / 16 / kColumnWarps;
  static constexpr int kRowThreads = kAttendThreads / kRows;      // softmax: threads of a head,
  static constexpr int kThreadKeys = kAttendKeys / kRowThreads;   // keys of a thread

  const MlaDecodeParams& p;
  int stride, steps;          // steps of 16 along a row, zeros behind its end
  Bf16 *query, *tiles;        // [kRows][stride], [stages][kAttendKeys][stride]
  float *scores, *rescale;    // [2][kRows][kAttendKeys] (halves), then weights; [kRows]
  int32_t* keyRow;            // [kSplitKeys]

  __device__ AttendBlock(const MlaDecodeParams& params, void* shared, int stages) : p(params) {
    const int64_t width = p.kvRank + p.rope;
    stride = attendStride(width);
    steps = static_cast<int>((width + 15) / 16);
    query = static_cast<Bf16*>(shared);
    tiles = query + kRows * stride;
    scores = reinterpret_cast<float*>(tiles + stages * kAttendKeys * stride);
    rescale = scores + 2 * kRows * kAttendKeys;
    keyRow = reinterpret_cast<int32_t*>(rescale + kRows);
  }

  /// Starts copying [q_lat | q_rope] of the heads from `head` on; zeros for heads that there are not.
  __device__ void loadQuery(int64_t row, int64_t head) const {
    const int lane = threadIdx.x & 31, rank = static_cast<int>(p.kvRank), width = rank + static_cast<int>(p.rope);
    for (int m = threadIdx.x >> 5; m < kRows; m += kAttendThreads / 32) {
      const bool there = head + m < p.heads;
      const int64_t pair = row * p.heads + (there ? head + m : 0);
      const Bf16 *latent = numbersIn<Bf16>(p.qLatent) + pair * p.kvRank, *rope = numbersIn<Bf16>(p.q) + pair * (p.nope + p.rope) + p.nope;
      for (int c = lane; c < 2 * steps; c += 32) {
        const int k = 8 * c;
        const bool inside = there && k < width;
        copyAsync16(query + chunkAt(m, c, stride), !inside || k < rank ? latent + (inside ? k : 0) : rope + (k - rank), inside);
      }
    }
  }

  /// Starts copying tile t of the split's cache rows; zeros from the last key on.
  __device__ void loadTile(Bf16* tile, int t, int keys) const {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, width = static_cast<int>(p.kvRank + p.rope);
#pragma unroll
    for (int i = 0; i < kAttendKeys / 8; ++i) {
      const int j = warp * (kAttendKeys / 8) + i, key = t * kAttendKeys + j;
      const Bf16* row = numbersIn<Bf16>(p.cache) + static_cast<int64_t>(keyRow[key]) * width;
      for (int c = lane; c < 2 * steps; c += 32) {
        const bool inside = key < keys && 8 * c < width;
        copyAsync16(tile + chunkAt(j, c, stride), row + (inside ? 8 * c : 0), inside);
      }
    }
  }
  /// The same of a packed cache: the tile is there at the next barrier.
  __device__ void unpackTile(Bf16* tile, int t, int keys) const {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, rank = static_cast<int>(p.kvRank), width = rank + static_cast<int>(p.rope);
    for (int i = 0; i < kAttendKeys / 8; ++i) {
      const int j = warp * (kAttendKeys / 8) + i, key = t * kAttendKeys + j;
      const PackedRow<const uint8_t> row = p.packedRow(keyRow[key]);
      for (int c = lane; c < 2 * steps; c += 32) {
        const int k = 8 * c;
        uint4 numbers = {0, 0, 0, 0};
        if (key < keys && k < width) numbers = k < rank ? latentOctet(row, k) : ropeKeyOctet(row, k - rank);
        *reinterpret_cast<uint4*>(tile + chunkAt(j, c, stride)) = numbers;
      }
    }
  }
  __device__ void bringTile(Bf16* tile, int t, int keys) const {
    if constexpr (PACKED) unpackTile(tile, t, keys);
    else loadTile(tile, t, keys);
  }

  /// One step of 16 along the row.
  __device__ __forceinline__ void scoreStep(const Bf16* tile, int step, int row0, int key0, float (&sum)[kQM][kQN][4]) const {
    const int lane = threadIdx.x & 31;
    uint32_t a[kQM][4], b[2 * kQN];
#pragma unroll
    for (int m = 0; m < kQM; ++m) loadMatrix4(a[m], query + chunkAt(row0 + 16 * m + (lane & 15), 2 * step + (lane >> 4), stride));
    const int key = key0 + (kQN == 2 ? (lane >> 4) * 8 : 0) + (lane & 7);
    const Bf16* keys = tile + chunkAt(key, 2 * step + ((lane >> 3) & 1), stride);
    if constexpr (kQN == 2) loadMatrix4(b, keys);
    else loadMatrix2(b, keys);
#pragma unroll
    for (int m = 0; m < kQM; ++m)
#pragma unroll
      for (int n = 0; n < kQN; ++n) mma16816(sum[m][n], a[m], b[2 * n], b[2 * n + 1]);
  }

  /// The tile's unscaled scores, a half of the row's length each, to `scores`.
  __device__ void scoreTile(const Bf16* tile) const {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, half = warp >> 2;
    const int row0 = MT == 1 ? 0 : (warp & 1) * kQM * 16, key0 = MT == 1 ? (warp & 3) * 8 : ((warp >> 1) & 1) * 16;
    const int middle = (steps + 1) / 2, end = half ? steps : middle;
    float even[kQM][kQN][4] = {}, odd[kQM][kQN][4] = {};
#pragma unroll 3
    for (int step = half ? middle : 0; step < end; step += 2) {
      scoreStep(tile, step, row0, key0, even);
      if (step + 1 < end) scoreStep(tile, step + 1, row0, key0, odd);
    }
    float* to = scores + half * kRows * kAttendKeys;
#pragma unroll
    for (int m = 0; m < kQM; ++m)
#pragma unroll
      for (int n = 0; n < kQN; ++n)
#pragma unroll
        for (int i = 0; i < 4; i += 2) {
          const int row = row0 + 16 * m + (lane >> 2) + 4 * i, key = key0 + 8 * n + 2 * (lane & 3);
          *reinterpret_cast<float2*>(to + scoreAt(row, key)) = make_float2(even[m][n][i] + odd[m][n][i], even[m][n][i + 1] + odd[m][n][i + 1]);
        }
  }
  /// Groups of eight keys are exchanged by row, so that four rows fall in different banks.
  static __device__ __forceinline__ int scoreAt(int row, int key) { return row * kAttendKeys + (((key >> 3) ^ (row & 3)) << 3) + (key & 7); }

  /// Scores to weights exp(score − maximum) in bfloat16, over the lower half's scores (four chunks in a row of 128 bytes).
  __device__ void weighTile(int t, int keys, float& maximum) const {
    const int row = threadIdx.x / kRowThreads, key = threadIdx.x % kRowThreads * kThreadKeys;
    const float* from = scores + scoreAt(row, key);
    float s[kThreadKeys], most = maximum;
#pragma unroll
    for (int i = 0; i < kThreadKeys; ++i) {
      s[i] = t * kAttendKeys + key + i < keys ? (from[i] + from[kRows * kAttendKeys + i]) * p.softmaxScale : -INFINITY;
      most = fmaxf(most, s[i]);
    }
#pragma unroll
    for (int d = kRowThreads / 2; d > 0; d >>= 1) most = fmaxf(most, __shfl_xor_sync(kAllLanes, most, d));
    if (key == 0) rescale[row] = __expf(maximum - most);
    maximum = most;
    __syncwarp();  // the row's threads, all of this warp, have read it
    auto* to = reinterpret_cast<__nv_bfloat162*>(weightRow(row) + (((key >> 3) ^ (row & 7)) << 3) + (key & 7));
#pragma unroll
    for (int i = 0; i < kThreadKeys; i += 2) to[i / 2] = __floats2bfloat162_rn(__expf(s[i] - most), __expf(s[i + 1] - most));
  }
  __device__ __forceinline__ Bf16* weightRow(int row) const { return reinterpret_cast<Bf16*>(scores + row * kAttendKeys); }

  /// latent += weights · rows, and the weights' sums by the same instructions.
  __device__ __forceinline__ void sumTile(const Bf16* tile, float (&latent)[kPairs][2][4], float (&sum)[4]) const {
    constexpr uint32_t kOnes = 0x3f803f80u;
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, row0 = warp % MT * 16, rank = static_cast<int>(p.kvRank);
    const float low = rescale[row0 + (lane >> 2)], high = rescale[row0 + (lane >> 2) + 8];
    if (!__all_sync(kAllLanes, low == 1.0f && high == 1.0f)) {
      sum[0] *= low, sum[1] *= low, sum[2] *= high, sum[3] *= high;
#pragma unroll
      for (int j = 0; j < kPairs; ++j)
#pragma unroll
        for (int n = 0; n < 2; ++n) latent[j][n][0] *= low, latent[j][n][1] *= low, latent[j][n][2] *= high, latent[j][n][3] *= high;
    }
#pragma unroll
    for (int step = 0; step < kAttendKeys / 16; ++step) {
      uint32_t a[4];
      const int row = row0 + (lane & 15);
      loadMatrix4(a, weightRow(row) + (((2 * step + (lane >> 4)) ^ (row & 7)) << 3));
      mma16816(sum, a, kOnes, kOnes);
      const int key = 16 * step + ((lane >> 3) & 1) * 8 + (lane & 7);
#pragma unroll
      for (int j = 0; j < kPairs; ++j) {
        const int pair = warp / MT + j * kColumnWarps;
        if (16 * pair >= rank) break;
        uint32_t b[4];
        loadMatrix4Transposed(b, tile + chunkAt(key, 2 * pair + (lane >> 4), stride));
        mma16816(latent[j][0], a, b[0], b[1]);
        mma16816(latent[j][1], a, b[2], b[3]);
      }
    }
  }

  /// The split's partial results of the heads from `head` on.
  __device__ void store(int64_t index, int64_t head, const float (&latent)[kPairs][2][4], const float (&sum)[4], float maximum) const {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, rank = static_cast<int>(p.kvRank);
    float* first = p.partial + (index * p.heads + head) * (p.kvRank + 2);
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
      const int row = warp % MT * 16 + (lane >> 2) + 4 * i;
      if (head + row >= p.heads) continue;
      float* to = first + row * (p.kvRank + 2);
#pragma unroll
      for (int j = 0; j < kPairs; ++j)
#pragma unroll
        for (int n = 0; n < 2; ++n) {
          const int column = 16 * (warp / MT + j * kColumnWarps) + 8 * n + 2 * (lane & 3);
          if (column < rank) *reinterpret_cast<float2*>(to + column) = make_float2(latent[j][n][i], latent[j][n][i + 1]);
        }
      if (warp < MT && (lane & 3) == 0) to[rank + 1] = sum[i];
    }
    const int row = threadIdx.x / kRowThreads;
    if (threadIdx.x % kRowThreads == 0 && head + row < p.heads) first[row * (p.kvRank + 2) + rank] = maximum;
  }
};

/// Partial results of all live splits: a persistent block takes a split and a group of 16·MT heads at a time.
template <int MT, int STAGES, bool PACKED>
__global__ void __launch_bounds__(kAttendThreads) attendSplits(const MlaDecodeParams p) {
  awaitPrevious();
  extern __shared__ __align__(128) unsigned char sharedBytes[];
  using Block = AttendBlock<MT, PACKED>;
  const Block block(p, sharedBytes, STAGES);
  const int64_t groups = (p.heads + Block::kRows - 1) / Block::kRows, items = liveOf(p).splits * groups;
  const int tileSize = kAttendKeys * block.stride;
  for (int64_t item = blockIdx.x; item < items; item += gridDim.x) {
    const int64_t index = item / groups, head = (item - index * groups) * Block::kRows;
    const Split split = splitAt(p, index);
    const int tiles = (split.keys + kAttendKeys - 1) / kAttendKeys;
    __syncthreads();  // shared memory of the item before has been read
    block.loadQuery(split.row, head);
    static_assert(kAttendThreads == kSplitKeys);  // thread j has key j
    block.keyRow[threadIdx.x] = static_cast<int>(threadIdx.x) < split.keys ? cacheRow(p, split, threadIdx.x) : 0;
    __syncthreads();
#pragma unroll
    for (int t = 0; t < STAGES - 1; ++t) {
      if (t < tiles) block.bringTile(block.tiles + t * tileSize, t, split.keys);
      commitCopies();
    }
    float latent[Block::kPairs][2][4] = {}, sum[4] = {}, maximum = -INFINITY;
    for (int t = 0; t < tiles; ++t) {
      waitCopies<STAGES - 2>();
      __syncthreads();  // tile t is there for all; tile t-1 and its weights have been read by all
      const int next = t + STAGES - 1;
      if (next < tiles) block.bringTile(block.tiles + next % STAGES * tileSize, next, split.keys);
      commitCopies();
      const Bf16* tile = block.tiles + t % STAGES * tileSize;
      block.scoreTile(tile);
      __syncthreads();
      block.weighTile(t, split.keys, maximum);
      __syncthreads();
      block.sumTile(tile, latent, sum);
    }
    block.store(index, head, latent, sum, maximum);
  }
  waitCopies<0>();
}

}  // namespace
}  // namespace longcat::cuda
