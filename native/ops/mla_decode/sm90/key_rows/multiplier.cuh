// Attention of decode rows with keys as the rows of the matrix instructions: a warpgroup that multiplies. Two of them share the work: each scores every
// second tile, and adds all tiles to its own 256 columns. A tile's weights go through shared memory for both.
#pragma once

#include "cuda/hopper/wgmma.cuh"
#include "ops/mla_decode/sm90/key_rows/block.cuh"

namespace longcat::cuda {
namespace {

/// What a thread has of a unit or a row: four panels' columns g, g + 8 of its warp's 16, of heads 8 j + 2 q, + 1.
template <int H>
struct KeyRowsSums {
  float latent[4][H / 2];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int m = 0; m < 4; ++m)
#pragma unroll
      for (int i = 0; i < H / 2; ++i) latent[m][i] = 0;
  }
  /// f(number among sums of one panel, head's number)
  template <class F>
  static __device__ __forceinline__ void each(const F& f) {
#pragma unroll
    for (int j = 0; j < H / 8; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i) f(4 * j + i, 2 * j + (i & 1));
  }
};

template <class Shared>
struct KeyRowsMultiplier {
  static constexpr int H = Shared::kHeads, kQueryBytes = H * 128;
  static constexpr int kMine = H / 4;  // heads of a thread; number 2 j + i is head 8 j + 2 q + i
  Shared& shared;
  float scale;           // of scores, for powers of two
  int half, lane, warp;  // the warpgroup: which 256 columns, and the parity of its tiles; the warp in it
  KeyRowsSums<H> sums;  // of the unit
  float maximum[kMine], total[kMine];

  __device__ KeyRowsMultiplier(Shared& s, float softmaxScale)
      : shared(s), scale(softmaxScale * 1.4426950408889634f), half(__shfl_sync(kAllLanes, static_cast<int>(threadIdx.x / 128) - 1, 0)),
        lane(static_cast<int>(threadIdx.x & 31)), warp(static_cast<int>(threadIdx.x / 32 & 3)) {}

  static constexpr int kOwn = 1, kBoth = 3;  // barriers: of a warpgroup (and the next number), of both
  __device__ __forceinline__ void syncOwn() const { syncSome(kOwn + half, 128); }
  __device__ __forceinline__ void release(Barrier* barrier) const {
    __syncwarp();
    if (lane == 0) arrive(barrier);
  }
  /// A part of a tile has been read.
  __device__ __forceinline__ void giveBack(TilePlace at, int part) const { release(&shared.empty[at.stage][part]); }
  __device__ __forceinline__ int firstHead() const { return 2 * (lane & 3); }

  /// Whether all of a tile has arrived, as all warps of the warpgroup see it.
  __device__ __forceinline__ bool isThere(TilePlace at) const {
    const bool there = agreeSome(kOwn + half, 128, lane >= kPanels || isOverNow(&shared.full[at.stage][lane], at.phase));
    return __shfl_sync(kAllLanes, static_cast<int>(there), 0);
  }

  __device__ __forceinline__ void startScores(TilePlace at, float (&score)[H / 2]) const {
    const uint64_t query = rowsOfK(shared.query), keys = rowsOfK(shared.tile[at.stage]);
    beginProducts();
#pragma unroll
    for (int panel = 0; panel < kPanels; ++panel) {
      wait(&shared.full[at.stage][panel], at.phase);
#pragma unroll
      for (int k = 0; k < 128; k += 32)
        productBf16<H>(score, furtherOn(keys, panel * kPanelBytes + k), furtherOn(query, panel * kQueryBytes + k), panel > 0 || k > 0);
    }
    endProducts();
  }

  /// Starts adding a tile to this half's columns; its weights are there.
  __device__ __forceinline__ void startValues(TilePlace at) {
    const uint64_t columns = rowsAcrossK(shared.tile[at.stage][half * (kValuePanels / 2)], kPanelBytes), weights = rowsOfK(shared.weights[at.stage]);
    beginProducts();
#pragma unroll
    for (int k = 0; k < kTileKeys / 16; ++k)
#pragma unroll
      for (int m = 0; m < 4; ++m)
        productBf16<H, false, true>(sums.latent[m], furtherOn(columns, m * kPanelBytes + 16 * 128 * k), furtherOn(weights, 32 * k));
    endProducts();
  }
  __device__ __forceinline__ void endValues(TilePlace at) {
    waitProducts<0>();
#pragma unroll
    for (int m = 0; m < 4; ++m) holdRegisters(sums.latent[m]);
    giveBack(at, half);
  }

  __device__ __forceinline__ void rescale(const float (&factor)[kMine]) {
    bool all = true;
#pragma unroll
    for (int i = 0; i < kMine; ++i) all = all && factor[i] == 1.0f;
    if (__all_sync(kAllLanes, all)) return;
    KeyRowsSums<H>::each([&](int i, int head) {
#pragma unroll
      for (int m = 0; m < 4; ++m) sums.latent[m][i] *= factor[head];
    });
  }

  __device__ __forceinline__ void startOthersValues(TilePlace at) {
    wait(&shared.weighed[at.stage], at.phase);
    float factor[kMine];
#pragma unroll
    for (int j = 0; j < H / 8; ++j) {
      const float2 f = *reinterpret_cast<const float2*>(&shared.rescale[at.stage][8 * j + firstHead()]);
      const float2 m = *reinterpret_cast<const float2*>(&shared.maximum[at.stage][8 * j + firstHead()]);
      factor[2 * j] = f.x, factor[2 * j + 1] = f.y, maximum[2 * j] = m.x, maximum[2 * j + 1] = m.y;
      total[2 * j] *= f.x, total[2 * j + 1] *= f.y;
    }
    rescale(factor);
    startValues(at);
  }

  /// Scores to weights exp(score − maximum), into shared memory for both warpgroups.
  __device__ __forceinline__ void weigh(TilePlace at, float (&score)[H / 2], int keys, float (&factor)[kMine]) {
    const int key = 16 * warp + lane / 4;
    if (keys < kTileKeys) {
      const bool low = key < keys, high = key + 8 < keys;
#pragma unroll
      for (int i = 0; i < H / 2; ++i)
        if (!(i & 2 ? high : low)) score[i] = -INFINITY;
    }
    float most[kMine];
#pragma unroll
    for (int h = 0; h < kMine; ++h) most[h] = fmaxf(score[h / 2 * 4 + h % 2], score[h / 2 * 4 + 2 + h % 2]);
#pragma unroll
    for (int d = 4; d < 32; d *= 2)
#pragma unroll
      for (int h = 0; h < kMine; ++h) most[h] = fmaxf(most[h], __shfl_xor_sync(kAllLanes, most[h], d));
    if (lane < 4) {
#pragma unroll
      for (int j = 0; j < H / 8; ++j) *reinterpret_cast<float2*>(&shared.tileMost[half][warp][8 * j + firstHead()]) = make_float2(most[2 * j], most[2 * j + 1]);
    }
    syncOwn();
#pragma unroll
    for (int j = 0; j < H / 8; ++j) {
      float2 of[4];
#pragma unroll
      for (int w = 0; w < 4; ++w) of[w] = *reinterpret_cast<const float2*>(&shared.tileMost[half][w][8 * j + firstHead()]);
      most[2 * j] = fmaxf(fmaxf(of[0].x, of[1].x), fmaxf(of[2].x, of[3].x));
      most[2 * j + 1] = fmaxf(fmaxf(of[0].y, of[1].y), fmaxf(of[2].y, of[3].y));
    }
#pragma unroll
    for (int h = 0; h < kMine; ++h) {
      most[h] = fmaxf(maximum[h], most[h] * scale);
      factor[h] = powerOfTwo(maximum[h] - most[h]);
      maximum[h] = most[h];
    }
    uint32_t pairs[H / 8][2];  // of heads 2 q, + 1; keys g and g + 8
#pragma unroll
    for (int j = 0; j < H / 8; ++j) {
      float add[2] = {0, 0};
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const uint32_t pair = bf16Pair(powerOfTwo(fmaf(score[4 * j + 2 * r], scale, -maximum[2 * j])),
                                       powerOfTwo(fmaf(score[4 * j + 2 * r + 1], scale, -maximum[2 * j + 1])));
        const float2 rounded = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&pair));
        add[0] += rounded.x, add[1] += rounded.y;
        pairs[j][r] = pair;
      }
#pragma unroll
      for (int i = 0; i < 2; ++i) total[2 * j + i] = fmaf(total[2 * j + i], factor[2 * j + i], add[i]);
    }
    auto* to = reinterpret_cast<unsigned char*>(shared.weights[at.stage]) + swizzled128(lane & 7, 2 * warp + (lane >> 3 & 1)) + (lane >> 4) * 1024;
#pragma unroll
    for (int j = 0; j < H / 8; j += 2) {
      const uint32_t four[4] = {pairs[j][0], pairs[j][1], pairs[j + 1][0], pairs[j + 1][1]};
      storeMatrix4Transposed(to + j * 1024, four);
    }
    if (warp == 0 && lane < 4) {
#pragma unroll
      for (int j = 0; j < H / 8; ++j) {
        *reinterpret_cast<float2*>(&shared.maximum[at.stage][8 * j + firstHead()]) = make_float2(maximum[2 * j], maximum[2 * j + 1]);
        *reinterpret_cast<float2*>(&shared.rescale[at.stage][8 * j + firstHead()]) = make_float2(factor[2 * j], factor[2 * j + 1]);
      }
    }
    // Keys that there are not become zeros, whatever lay there: a weight of zero does not make a number of what is none.
    for (int i = static_cast<int>(threadIdx.x % 128); i < (kTileKeys - keys) * kValuePanels * 8; i += 128)
      *reinterpret_cast<uint4*>(reinterpret_cast<unsigned char*>(shared.tile[at.stage][i / 8 % kValuePanels]) + (keys + i / (8 * kValuePanels)) * 128 + i % 8 * 16) = make_uint4(0, 0, 0, 0);
    fenceAsyncProxy();
    release(&shared.weighed[at.stage]);
  }

  /// One of the warpgroup's own tiles; before it, where it is not the unit's first, the other's tile that precedes it.
  template <bool kFirst>
  __device__ __forceinline__ void tile(uint32_t number, int keys) {
    const TilePlace own(number), others(number - 1);
    float score[H / 2], factor[kMine];
    if (!kFirst && isThere(own)) {
      startScores(own, score);
      startOthersValues(others);
      waitProducts<1>();
      holdRegisters(score);
      giveBack(own, kRope);
      weigh(own, score, keys, factor);
      endValues(others);
    } else {
      if constexpr (!kFirst) {
        startOthersValues(others);
        endValues(others);
      }
      startScores(own, score);
      waitProducts<0>();
      holdRegisters(score);
      giveBack(own, kRope);
      weigh(own, score, keys, factor);
    }
    rescale(factor);
    wait(&shared.weighed[own.stage], own.phase);
    startValues(own);
    endValues(own);
  }

  /// All keys of a unit, whose first tile has the number `first`; the query is there. `last`: no unit after it needs the query.
  __device__ __forceinline__ void unit(uint32_t first, int32_t keys, bool last, int parity) {
    const int tiles = (keys + kTileKeys - 1) / kTileKeys;
    sums.clear();
#pragma unroll
    for (int h = 0; h < kMine; ++h) maximum[h] = -INFINITY, total[h] = 0;
    int t = (half ^ static_cast<int>(first)) & 1;
    if (t == 0) {
      tile<true>(first, min(keys, kTileKeys));
      t = 2;
    }
    for (; t < tiles; t += 2) tile<false>(first + static_cast<uint32_t>(t), min(keys - t * kTileKeys, kTileKeys));
    if (last) release(&shared.queryEmpty);
    if (t == tiles) {  // the last tile is the other's
      const TilePlace at(first + static_cast<uint32_t>(tiles) - 1);
      startOthersValues(at);
      endValues(at);
    }
    addWeights(parity);
  }

  /// The weights' sums of all threads and both warpgroups.
  __device__ __forceinline__ void addWeights(int parity) {
#pragma unroll
    for (int d = 4; d < 32; d *= 2)
#pragma unroll
      for (int h = 0; h < kMine; ++h) total[h] += __shfl_xor_sync(kAllLanes, total[h], d);
    if (lane < 4) {
#pragma unroll
      for (int j = 0; j < H / 8; ++j) *reinterpret_cast<float2*>(&shared.sums[parity][half][warp][8 * j + firstHead()]) = make_float2(total[2 * j], total[2 * j + 1]);
    }
    syncSome(kBoth, 256);
#pragma unroll
    for (int j = 0; j < H / 8; ++j) {
      float2 of[2];
#pragma unroll
      for (int g = 0; g < 2; ++g) {
        of[g] = make_float2(0, 0);
#pragma unroll
        for (int w = 0; w < 4; ++w) {
          const float2 s = *reinterpret_cast<const float2*>(&shared.sums[parity][g][w][8 * j + firstHead()]);
          of[g].x += s.x, of[g].y += s.y;
        }
      }
      total[2 * j] = of[0].x + of[1].x, total[2 * j + 1] = of[0].y + of[1].y;
    }
  }

  /// Sums of heads below `heads` to their place among partial results (keyRowsColumn() says which columns lie where).
  __device__ __forceinline__ void storeSums(const KeyRowsSums<H>& s, float* to, int heads) const {
    to += (4 * half + warp) * 64 + 4 * (lane / 4);
#pragma unroll
    for (int h = 0; h < kMine; ++h) {
      const int head = h / 2 * 8 + firstHead() + h % 2, at = h / 2 * 4 + h % 2;
      if (head >= heads) continue;
#pragma unroll
      for (int v = 0; v < 2; ++v)
        __stcg(reinterpret_cast<float4*>(to + head * kHopperRank + 32 * v),
               make_float4(s.latent[2 * v][at], s.latent[2 * v][at + 2], s.latent[2 * v + 1][at], s.latent[2 * v + 1][at + 2]));
    }
  }
  __device__ __forceinline__ void storeWeights(float2* to, int heads, int h, float most, float sum) const {
    const int head = h / 2 * 8 + firstHead() + h % 2;
    if (half == 0 && warp == 0 && lane < 4 && head < heads) to[head] = make_float2(most, sum);
  }
  /// A row's latents: sums over the weights' sums.
  __device__ __forceinline__ void storeLatents(const KeyRowsSums<H>& s, const RunningMerge (&merge)[kMine], Bf16* to, int heads) const {
    const int odd = lane >> 2 & 1, head0 = firstHead() + odd;
    to += 256 * half + 16 * warp + (lane / 4 & 6);
#pragma unroll
    for (int j = 0; j < H / 8; ++j) {
      const float inverse[2] = {merge[2 * j].inverse(), merge[2 * j + 1].inverse()};
      const int head = 8 * j + head0;
#pragma unroll
      for (int m = 0; m < 4; ++m)
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          const float a = s.latent[m][4 * j + 2 * r] * inverse[0], b = s.latent[m][4 * j + 2 * r + 1] * inverse[1];
          const float other = __shfl_xor_sync(kAllLanes, odd ? a : b, 4);  // a neighbour's column of this lane's head
          if (head < heads) *reinterpret_cast<uint32_t*>(to + head * kHopperRank + 64 * m + 8 * r) = odd ? bf16Pair(other, b) : bf16Pair(a, other);
        }
    }
  }
};

}  // namespace
}  // namespace longcat::cuda
