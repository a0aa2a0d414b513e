// Attention of decode rows on Hopper: a warpgroup that multiplies, tile by tile, its own and those that the other one has scored.
#pragma once

#include "cuda/hopper/wgmma.cuh"
#include "ops/mla_decode/sm90/block.cuh"
#include "ops/mla_decode/sm90/sums.cuh"

namespace longcat::cuda {
namespace {

constexpr int kOwnBarrier = 1;  // and the next: all warps of one warpgroup

template <int PIECES>
struct Multiplier : UnitSums<PIECES> {
  using Sums = UnitSums<PIECES>;
  using Sums::half, Sums::lane, Sums::warp, Sums::row, Sums::maximum, Sums::total, Sums::latents;
  UnitShared& shared;
  float scale;  // of scores, for powers of two

  __device__ Multiplier(UnitShared& s, float softmaxScale) : shared(s), scale(softmaxScale * 1.4426950408889634f) {}

  /// Whether all of a tile has arrived, as all warps of the warpgroup see it.
  __device__ __forceinline__ bool isThere(TilePlace at) const {
    const bool there = agreeSome(kOwnBarrier + half, 128, lane >= kPanels || isOverNow(&shared.full[at.stage][lane], at.phase));
    return __shfl_sync(kAllLanes, static_cast<int>(there), 0);  // for the compiler, which must know that warps do not diverge here
  }

  /// Starts the products of a tile's scores, panel by panel as they arrive.
  __device__ __forceinline__ void startScores(TilePlace at, float (&score)[32]) const {
    const uint64_t query = rowsOfK(shared.query), keys = rowsOfK(shared.tile[at.stage]);
    beginProducts();
#pragma unroll
    for (int panel = 0; panel < kPanels; ++panel) {
      wait(&shared.full[at.stage][panel], at.phase);
#pragma unroll
      for (int k = 0; k < 128; k += 32)
        productBf16<64>(score, furtherOn(query, panel * kPanelBytes + k), furtherOn(keys, panel * kPanelBytes + k), panel > 0 || k > 0);
    }
    endProducts();
  }

  /// Adds a step of 16 keys; `columns`: of this half, from the step's first key on.
  template <class A>
  __device__ __forceinline__ void addStep(const A& weights, uint64_t columns) {
#pragma unroll
    for (int piece = 0; piece < PIECES; ++piece)
      productBf16<256 / PIECES, true>(latents[piece], weights, furtherOn(columns, piece * (kValuePanels / 2 / PIECES) * kPanelBytes));
  }
  __device__ __forceinline__ void holdLatents() {
#pragma unroll
    for (int piece = 0; piece < PIECES; ++piece) holdRegisters(latents[piece]);
  }
  /// This half's columns of a tile's values.
  __device__ __forceinline__ uint64_t values(int stage) const { return rowsAcrossK(shared.tile[stage][half * (kValuePanels / 2)], kPanelBytes); }

  /// Starts adding the other warpgroup's tile: its weights, maximum and sum come through shared memory.
  __device__ __forceinline__ void startOthersValues(TilePlace at) {
    wait(&shared.weights[at.stage], at.phase);
    Sums::rescale(shared.rescale[at.stage][row], shared.rescale[at.stage][row + 8]);
    maximum[0] = shared.maximum[at.stage][row], maximum[1] = shared.maximum[at.stage][row + 8];
    total[0] += shared.sum[at.stage][row], total[1] += shared.sum[at.stage][row + 8];
    const uint64_t weights = rowsOfK(shared.tile[at.stage][kRopePanel]), columns = values(at.stage);
    beginProducts();
#pragma unroll
    for (int k = 0; k < kTileKeys / 16; ++k) addStep(furtherOn(weights, 32 * k), furtherOn(columns, 16 * 128 * k));
    endProducts();
  }
  /// The other's tile has been added: its panels are empty as far as this warpgroup reads them.
  __device__ __forceinline__ void endOthersValues(TilePlace at) {
    waitProducts<0>();
    holdLatents();
    release(&shared.empty[at.stage][half]);
    release(&shared.empty[at.stage][kRope]);
  }
  __device__ __forceinline__ void release(Barrier* barrier) const {
    __syncwarp();
    if (lane == 0) arrive(barrier);
  }

  /// Scores to weights exp(score − maximum) as fragments of A, and what they do to the sums. `keys`: of the tile, from there on there are none.
  __device__ __forceinline__ void weigh(float (&score)[32], int keys, uint32_t (&weights)[4][4], float (&factor)[2], float (&sum)[2]) {
    if (keys < kTileKeys) {
#pragma unroll
      for (int i = 0; i < 32; ++i)
        if (8 * (i / 4) + 2 * (lane & 3) + (i & 1) >= keys) score[i] = -INFINITY;
    }
    float most[2] = {score[0], score[2]};
#pragma unroll
    for (int i = 1; i < 16; ++i)
#pragma unroll
      for (int r = 0; r < 2; ++r) most[r] = fmaxf(most[r], score[4 * (i / 2) + 2 * r + (i & 1)]);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      most[r] = fmaxf(most[r], __shfl_xor_sync(kAllLanes, most[r], 1));
      most[r] = fmaxf(most[r], __shfl_xor_sync(kAllLanes, most[r], 2)) * scale;
      most[r] = fmaxf(maximum[r], most[r]);
      factor[r] = powerOfTwo(maximum[r] - most[r]);
      maximum[r] = most[r];
      sum[r] = 0;
    }
#pragma unroll
    for (int i = 0; i < 32; i += 2) {
      const int r = i / 2 & 1;
      const uint32_t pair = bf16Pair(powerOfTwo(fmaf(score[i], scale, -maximum[r])), powerOfTwo(fmaf(score[i + 1], scale, -maximum[r])));
      const float2 rounded = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&pair));
      sum[r] += rounded.x + rounded.y;
      weights[i / 8][i / 2 % 4] = pair;
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      sum[r] += __shfl_xor_sync(kAllLanes, sum[r], 1);
      sum[r] += __shfl_xor_sync(kAllLanes, sum[r], 2);
    }
  }

  /// For the other warpgroup: the weights, in place of the tile's rope keys, and what goes with them. Keys that there are not become zeros, whatever
  /// lay there: a weight of zero does not make a number of what is none.
  __device__ __forceinline__ void publish(TilePlace at, int keys, const uint32_t (&weights)[4][4], const float (&factor)[2], const float (&sum)[2]) const {
    syncOwn();  // all warps are through with their scores, and with them with the rope keys
    auto* panel = reinterpret_cast<unsigned char*>(shared.tile[at.stage][kRopePanel]);
    const int place = swizzled128(16 * warp + (lane & 15), lane >> 4);
#pragma unroll
    for (int k = 0; k < kTileKeys / 16; ++k) storeMatrix4(panel + (place ^ 32 * k), weights[k]);
    if ((lane & 3) == 0) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        shared.maximum[at.stage][row + 8 * r] = maximum[r];
        shared.rescale[at.stage][row + 8 * r] = factor[r];
        shared.sum[at.stage][row + 8 * r] = sum[r];
      }
    }
    for (int i = static_cast<int>(threadIdx.x % 128); i < (kTileKeys - keys) * kValuePanels * 8; i += 128)
      *reinterpret_cast<uint4*>(reinterpret_cast<unsigned char*>(shared.tile[at.stage][i / 8 % kValuePanels]) + (keys + i / (8 * kValuePanels)) * 128 +
                                i % 8 * 16) = make_uint4(0, 0, 0, 0);
    fenceAsyncProxy();
    release(&shared.weights[at.stage]);
    if (keys < kTileKeys) syncOwn();  // the zeros of all warps
  }
  __device__ __forceinline__ void syncOwn() const { syncSome(kOwnBarrier + half, 128); }

  /// Adds the warpgroup's own tile; its weights are in registers.
  __device__ __forceinline__ void addOwnValues(TilePlace at, const uint32_t (&weights)[4][4], const float (&factor)[2], const float (&sum)[2]) {
    Sums::rescale(factor[0], factor[1]);
    total[0] += sum[0], total[1] += sum[1];
    const uint64_t columns = values(at.stage);
    beginProducts();
#pragma unroll
    for (int k = 0; k < kTileKeys / 16; ++k) addStep(weights[k], furtherOn(columns, 16 * 128 * k));
    endProducts();
    waitProducts<0>();
    holdLatents();
    release(&shared.empty[at.stage][half]);
  }

  /// One of the warpgroup's own tiles; before it, where it is not the unit's first, the other's tile that precedes it.
  template <bool kFirst>
  __device__ __forceinline__ void tile(uint32_t number, int keys) {
    const TilePlace own(number), others(number - 1);
    float score[32], factor[2], sum[2];
    uint32_t weights[4][4];
    if (!kFirst && isThere(own)) {  // arithmetic is behind: the tensor cores have the other's tile while this warpgroup weighs
      startScores(own, score);
      startOthersValues(others);
      waitProducts<1>();
      holdRegisters(score);
      weigh(score, keys, weights, factor, sum);
      publish(own, keys, weights, factor, sum);
      endOthersValues(others);
    } else {  // memory is behind: the other's panels are emptied first
      if constexpr (!kFirst) {
        startOthersValues(others);
        endOthersValues(others);
      }
      startScores(own, score);
      waitProducts<0>();
      holdRegisters(score);
      weigh(score, keys, weights, factor, sum);
      publish(own, keys, weights, factor, sum);
    }
    addOwnValues(own, weights, factor, sum);
  }

  /// All keys of a unit, whose first tile has the number `first`; the query is there. `last`: no unit after it needs the query.
  __device__ __forceinline__ void unit(uint32_t first, int32_t keys, bool last) {
    const int tiles = (keys + kTileKeys - 1) / kTileKeys;
    Sums::begin();
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
      endOthersValues(at);
    }
  }
};

}  // namespace
}  // namespace longcat::cuda
