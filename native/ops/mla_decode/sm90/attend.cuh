// Attention of decode rows on Hopper: latents of 512 numbers, rope keys of 64, bfloat16. A block takes a unit of one row's keys and 64 heads, which
// are the rows of its matrix instructions; the unit's keys come in tiles of 64, two of them in shared memory, copied by the copy engine.
//
// A tile is nine panels of 64 keys × 64 numbers. Scores read a panel as rows along k, values read the first eight again as rows across k: each byte
// comes once. When its scores are there the ninth panel (the rope key) is no longer needed, and the tile's weights lie there instead.
//
// Two warpgroups share the work: each holds the sums of 256 latent columns, and scores every second tile. While one is at its softmax, which needs
// no tensor cores, the other multiplies.
//
//   warpgroup A   scores 0 │ softmax 0 · values −1 │ values 0 │ scores 2 │ softmax 2 · values 1 │ …
//   warpgroup B              scores 1 │ softmax 1 · values 0 │ values 1 │ scores 3 │ …
//
// Order of sums: a score is one chain along the row; a latent's number one chain along the keys in steps of 16, rescaled at each tile where the
// maximum grows; a tile's weights, rounded to bfloat16 for both uses, are added within the four threads that share a row, and tiles in ascending order.
#pragma once

#include "cuda/dependent.cuh"
#include "cuda/hopper/copy.cuh"
#include "cuda/hopper/tensor_map.h"
#include "cuda/hopper/wgmma.cuh"
#include "ops/mla_decode/units.cuh"

namespace longcat::cuda {
namespace {

constexpr int kTileKeys = 64, kUnitHeads = 64;
constexpr int kPanels = 9, kValuePanels = 8, kRopePanel = 8;
constexpr int kPanelNumbers = 64 * 64, kPanelBytes = kPanelNumbers * 2;
constexpr int64_t kHopperRank = 64 * kValuePanels, kHopperRope = 64;
constexpr int kUnitThreads = 384;  // the copies' warpgroup, and two that multiply

/// The lower half of the values' panels, the upper half, the rope key's panel: each is empty when those who read it are through.
enum Part { kLower, kUpper, kRope, kParts };

struct alignas(1024) UnitShared {
  Bf16 query[kPanels][kPanelNumbers];
  Bf16 tile[2][kPanels][kPanelNumbers];
  float maximum[2][kUnitHeads], rescale[2][kUnitHeads], sum[2][kUnitHeads];  // of a tile's weights
  Barrier queryFull, queryEmpty, full[2][kPanels], empty[2][kParts];
};
constexpr size_t kUnitSharedBytes = sizeof(UnitShared) + 1024;  // it begins at a multiple of 1024

struct UnitMaps {
  TensorMap latent, rope, cache;  // q_lat [T·heads, 512], q [T·heads, nope + 64], the cache's rows [slots, 576]
};

/// Named barriers: weights of an even or an odd tile are there; all warps of one warpgroup.
enum NamedBarrier { kWeightsThere = 1, kOwn = 3 };

/// Tiles are numbered over all units that a block takes: their parity says which stage and which warpgroup has them.
struct TilePlace {
  int stage;
  uint32_t phase;
  __device__ explicit TilePlace(uint32_t number) : stage(static_cast<int>(number & 1)), phase(number >> 1 & 1) {}
};

// ---- Copies: one warp for each part of the tiles ---------------------------------------------------------------------------------------------

class Copies {
 public:
  __device__ Copies(const MlaDecodeParams& p, const UnitMaps& maps, UnitShared& shared, Part part)
      : p_(p), maps_(maps), shared_(shared), part_(part), lane_(threadIdx.x & 31), policy_(readOncePolicy()) {
    pageKeys_ = p.blockSize < kTileKeys ? static_cast<int>(p.blockSize) : kTileKeys;
    const int panels = part == kRope ? 1 : kValuePanels / 2;
    panel_ = static_cast<int>(part) * (kValuePanels / 2) + lane_ % panels;
    page_ = lane_ / panels;  // one of the tile's, or behind them
  }

  /// [q_lat | q_rope] of 64 heads, where the last unit's have been read.
  __device__ void query(uint32_t unit, int64_t row, int64_t head) const {
    wait(&shared_.queryEmpty, (unit & 1) ^ 1);
    if (lane_ == 0) arriveExpecting(&shared_.queryFull, kPanels * kPanelBytes);
    __syncwarp();
    const int pair = static_cast<int>(row * p_.heads + head);
    if (lane_ < kValuePanels) copyBox(shared_.query[lane_], &maps_.latent, &shared_.queryFull, 64 * lane_, pair, policy_);
    if (lane_ == kRopePanel) copyBox(shared_.query[kRopePanel], &maps_.rope, &shared_.queryFull, static_cast<int>(p_.nope), pair, policy_);
  }

  /// Keys [first, first + keys) of `row` (at most 64), to the place of tile `number`. What lies behind the keys stays as it is, up to a page.
  __device__ void tile(uint32_t number, const int32_t* blocks, int32_t first, int32_t keys) const {
    const TilePlace at(number);
    const int pages = (min(keys, kTileKeys) + pageKeys_ - 1) / pageKeys_;
    int cacheRow = 0;
    if (page_ < pages) {
      const int32_t blockSize = static_cast<int32_t>(p_.blockSize), position = first + page_ * pageKeys_, block = position / blockSize;
      cacheRow = blocks[block] * blockSize + (position - block * blockSize);
    }
    wait(&shared_.empty[at.stage][part_], at.phase ^ 1);
    Barrier* full = &shared_.full[at.stage][panel_];
    if (page_ == 0) arriveExpecting(full, static_cast<uint32_t>(pages * pageKeys_ * 128));
    __syncwarp();
    if (page_ < pages) copyBox(shared_.tile[at.stage][panel_] + page_ * pageKeys_ * 64, &maps_.cache, full, 64 * panel_, cacheRow, policy_);
  }

 private:
  const MlaDecodeParams& p_;
  const UnitMaps& maps_;
  UnitShared& shared_;
  Part part_;
  int lane_, pageKeys_, panel_, page_;
  uint64_t policy_;
};

// ---- A warpgroup that multiplies -------------------------------------------------------------------------------------------------------------

__device__ __forceinline__ float powerOfTwo(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
  return y;
}

struct Multiplier {
  UnitShared& shared;
  int half;           // which 256 columns, and the parity of its tiles
  int lane, warp;     // warp of the warpgroup
  int row;            // the first of this thread's two rows (heads); the other one is eight further
  float scale;        // of scores, for powers of two

  float latent[128];  // [row, +8][half's columns], as wgmma has them
  float maximum[2], total[2];

  __device__ Multiplier(UnitShared& s, float softmaxScale)
      : shared(s), half(__shfl_sync(kAllLanes, static_cast<int>(threadIdx.x / 128) - 1, 0)), lane(static_cast<int>(threadIdx.x & 31)), warp(static_cast<int>(threadIdx.x / 32 & 3)),
        row(16 * warp + lane / 4), scale(softmaxScale * 1.4426950408889634f) {}

  __device__ __forceinline__ void begin() {
#pragma unroll
    for (int i = 0; i < 128; ++i) latent[i] = 0;
#pragma unroll
    for (int i = 0; i < 2; ++i) maximum[i] = -INFINITY, total[i] = 0;
  }

  /// Starts the products of a tile's scores, panel by panel as they arrive.
  __device__ __forceinline__ void startScores(TilePlace at, float (&score)[32]) const {
    beginProducts();
#pragma unroll
    for (int panel = 0; panel < kPanels; ++panel) {
      wait(&shared.full[at.stage][panel], at.phase);
#pragma unroll
      for (int k = 0; k < 64; k += 16)
        productBf16<64>(score, rowsOfK(shared.query[panel] + k), rowsOfK(shared.tile[at.stage][panel] + k), panel > 0 || k > 0);
    }
    endProducts();
  }

  /// The sums so far, for weights relative to a new maximum.
  __device__ __forceinline__ void rescale(float low, float high) {
    total[0] *= low, total[1] *= high;
    if (__all_sync(kAllLanes, low == 1.0f && high == 1.0f)) return;
#pragma unroll
    for (int j = 0; j < 128; j += 4) latent[j] *= low, latent[j + 1] *= low, latent[j + 2] *= high, latent[j + 3] *= high;
  }

  __device__ __forceinline__ const Bf16* values(int stage, int k) const { return shared.tile[stage][half * (kValuePanels / 2)] + k * 64; }

  /// Starts adding the other warpgroup's tile: its weights, maximum and sum come through shared memory.
  __device__ __forceinline__ void startOthersValues(TilePlace at) {
    syncSome(kWeightsThere + at.stage, 256);
    rescale(shared.rescale[at.stage][row], shared.rescale[at.stage][row + 8]);
    maximum[0] = shared.maximum[at.stage][row], maximum[1] = shared.maximum[at.stage][row + 8];
    total[0] += shared.sum[at.stage][row], total[1] += shared.sum[at.stage][row + 8];
    beginProducts();
#pragma unroll
    for (int k = 0; k < kTileKeys; k += 16)
      productBf16<256, true>(latent, rowsOfK(shared.tile[at.stage][kRopePanel] + k), rowsAcrossK(values(at.stage, k), kPanelBytes));
    endProducts();
  }
  /// The other's tile has been added: its panels are empty as far as this warpgroup reads them.
  __device__ __forceinline__ void endOthersValues(TilePlace at) {
    waitProducts<0>();
    holdRegisters(latent);
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
      const __nv_bfloat162 pair = __floats2bfloat162_rn(powerOfTwo(fmaf(score[i], scale, -maximum[r])), powerOfTwo(fmaf(score[i + 1], scale, -maximum[r])));
      const float2 rounded = __bfloat1622float2(pair);
      sum[r] += rounded.x + rounded.y;
      weights[i / 8][i / 2 % 4] = *reinterpret_cast<const uint32_t*>(&pair);
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
    syncSome(kOwn + half, 128);  // all warps are through with their scores, and with them with the rope keys
    auto* panel = reinterpret_cast<unsigned char*>(shared.tile[at.stage][kRopePanel]);
#pragma unroll
    for (int piece = 0; piece < 8; ++piece)
#pragma unroll
      for (int r = 0; r < 2; ++r)
        *reinterpret_cast<uint32_t*>(panel + swizzled128(row + 8 * r, piece) + 4 * (lane & 3)) = weights[piece / 2][piece % 2 * 2 + r];
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
    arriveSome(kWeightsThere + at.stage, 256);
    if (keys < kTileKeys) syncSome(kOwn + half, 128);  // the zeros of all warps
  }

  /// Adds the warpgroup's own tile; its weights are in registers.
  __device__ __forceinline__ void addOwnValues(TilePlace at, const uint32_t (&weights)[4][4], const float (&factor)[2], const float (&sum)[2]) {
    rescale(factor[0], factor[1]);
    total[0] += sum[0], total[1] += sum[1];
    beginProducts();
#pragma unroll
    for (int k = 0; k < kTileKeys / 16; ++k) productBf16<256, true>(latent, weights[k], rowsAcrossK(values(at.stage, 16 * k), kPanelBytes));
    endProducts();
    waitProducts<0>();
    holdRegisters(latent);
    release(&shared.empty[at.stage][half]);
  }

  /// One of the warpgroup's own tiles; before it, where it is not the unit's first, the other's tile that precedes it.
  template <bool kFirst>
  __device__ __forceinline__ void tile(uint32_t number, int keys) {
    const TilePlace own(number), others(number - 1);
    float score[32], factor[2], sum[2];
    uint32_t weights[4][4];
    startScores(own, score);
    if constexpr (!kFirst) startOthersValues(others);
    waitProducts<kFirst ? 0 : 1>();
    holdRegisters(score);
    weigh(score, keys, weights, factor, sum);
    publish(own, keys, weights, factor, sum);
    if constexpr (!kFirst) endOthersValues(others);
    addOwnValues(own, weights, factor, sum);
  }

  /// All keys of a unit, whose first tile has the number `first`; the query is there.
  __device__ __forceinline__ void attend(uint32_t first, int32_t keys) {
    const int tiles = (keys + kTileKeys - 1) / kTileKeys;
    int t = (half ^ static_cast<int>(first)) & 1;
    if (t == 0) {
      tile<true>(first, min(keys, kTileKeys));
      t = 2;
    }
    for (; t < tiles; t += 2) tile<false>(first + static_cast<uint32_t>(t), min(keys - t * kTileKeys, kTileKeys));
    release(&shared.queryEmpty);
    if (t == tiles) {  // the last tile is the other's
      const TilePlace last(first + static_cast<uint32_t>(tiles) - 1);
      startOthersValues(last);
      endOthersValues(last);
    }
  }

  /// The unit's partial results of `heads` heads (at most 64): [latent | maximum | sum of weights].
  __device__ __forceinline__ void store(float* partial, int heads) const {
    constexpr int kStride = static_cast<int>(kHopperRank) + 2;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      if (row + 8 * r >= heads) continue;
      float* to = partial + (row + 8 * r) * kStride;
#pragma unroll
      for (int j = 0; j < 32; ++j)
        *reinterpret_cast<float2*>(to + 256 * half + 8 * j + 2 * (lane & 3)) = make_float2(latent[4 * j + 2 * r], latent[4 * j + 2 * r + 1]);
      if (half == 0 && (lane & 3) == 0) *reinterpret_cast<float2*>(to + kHopperRank) = make_float2(maximum[r] * 0.6931471805599453f, total[r]);
    }
  }
};

/// Units and groups of 64 heads that a block takes, in order: f(Unit, its number, first head, index of the turn, number of its first tile).
template <class F>
__device__ __forceinline__ void forUnits(const MlaDecodeParams& p, UnitRule rule, const F& f) {
  UnitSearch search(p, rule);
  const int64_t groups = (p.heads + kUnitHeads - 1) / kUnitHeads;
  uint32_t turn = 0, tile = 0;
  Unit unit;
  for (int64_t item = blockIdx.x; search.find(item / groups, &unit); item += gridDim.x) {
    f(unit, item / groups, item % groups * kUnitHeads, turn, tile);
    ++turn;
    tile += static_cast<uint32_t>((unit.keys + kTileKeys - 1) / kTileKeys);
  }
}

__global__ void __launch_bounds__(kUnitThreads, 1) attendUnits(const __grid_constant__ MlaDecodeParams p, const __grid_constant__ UnitMaps maps, const UnitRule rule) {
  awaitPrevious();
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ unsigned char sharedBytes[];
  UnitShared& shared = *reinterpret_cast<UnitShared*>((reinterpret_cast<uintptr_t>(sharedBytes) + 1023) & ~uintptr_t{1023});
  if (threadIdx.x == 0) {
    initBarrier(&shared.queryFull, 1);
    initBarrier(&shared.queryEmpty, 8);  // a warp is one arrival
    for (int stage = 0; stage < 2; ++stage) {
      for (int panel = 0; panel < kPanels; ++panel) initBarrier(&shared.full[stage][panel], 1);
      for (int part = 0; part < kParts; ++part) initBarrier(&shared.empty[stage][part], 4);
    }
    fenceBarriers();
  }
  __syncthreads();
  if (threadIdx.x < 128) {
    fewerRegisters<40>();
    const int warp = static_cast<int>(threadIdx.x / 32);
    if (warp >= kParts) return;
    const Copies copies(p, maps, shared, static_cast<Part>(warp));
    forUnits(p, rule, [&](const Unit& unit, int64_t, int64_t head, uint32_t turn, uint32_t tile) {
      if (warp == kRope) copies.query(turn, unit.row, head);
      const int32_t* blocks = p.blockTables + p.rowSlot[unit.row] * p.maxBlocks;
      for (int32_t key = 0; key < unit.keys; key += kTileKeys) copies.tile(tile++, blocks, unit.first + key, unit.keys - key);
    });
  } else {
    moreRegisters<232>();
    Multiplier m(shared, p.softmaxScale);
    forUnits(p, rule, [&](const Unit& unit, int64_t number, int64_t head, uint32_t turn, uint32_t tile) {
      m.begin();
      wait(&shared.queryFull, turn & 1);
      m.attend(tile, unit.keys);
      m.store(p.partial + (number * p.heads + head) * (kHopperRank + 2), static_cast<int>(min(static_cast<int64_t>(kUnitHeads), p.heads - head)));
    });
  }
#endif
}

}  // namespace
}  // namespace longcat::cuda
