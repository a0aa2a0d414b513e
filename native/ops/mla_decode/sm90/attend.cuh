// Attention of decode rows on Hopper: latents of 512 numbers, rope keys of 64, bfloat16. A block takes runs of units (units.cuh): keys of one row that
// follow each other, and 64 heads, which are the rows of its matrix instructions. The keys come in tiles of 64, two of them in shared memory, copied
// by the copy engine.
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
// Where memory is behind, a warpgroup does not wait for its next tile with the other's values undone: it adds them first, and their panels are free.
//
// Order of sums: a score is one chain along the row; a latent's number one chain along the keys of a unit in steps of 16, rescaled at each tile where
// the maximum grows; a tile's weights, rounded to bfloat16 for both uses, are added within the four threads that share a row, and tiles in ascending
// order; then units as merge_units.cuh has it.
#pragma once

#include "cuda/dependent.cuh"
#include "cuda/hopper/copy.cuh"
#include "cuda/hopper/tensor_map.h"
#include "cuda/hopper/wgmma.cuh"
#include "ops/mla_decode/merge_units.cuh"

namespace longcat::cuda {
namespace {

constexpr int kPanels = 9, kValuePanels = 8, kRopePanel = 8;
constexpr int kPanelNumbers = 64 * 64, kPanelBytes = kPanelNumbers * 2;
static_assert(kHopperRank == 64 * kValuePanels);
constexpr int kUnitThreads = 384;  // the copies' warpgroup, and two that multiply

/// The lower half of the values' panels, the upper half, the rope key's panel: each is empty when those who read it are through.
enum Part { kLower, kUpper, kRope, kParts };

struct alignas(1024) UnitShared {
  Bf16 query[kPanels][kPanelNumbers];
  Bf16 tile[2][kPanels][kPanelNumbers];
  float maximum[2][kUnitHeads], rescale[2][kUnitHeads], sum[2][kUnitHeads];  // of a tile's weights
  Barrier queryFull, queryEmpty, full[2][kPanels], empty[2][kParts];
  Barrier weights[2];  // a tile's weights and what goes with them are there
  Run run[2];
  Barrier runFull[2], runEmpty[2];
};
constexpr size_t kUnitSharedBytes = sizeof(UnitShared) + 1024;  // it begins at a multiple of 1024

struct UnitMaps {
  TensorMap latent, rope, cache;  // q_lat [T·heads, 512], q [T·heads, nope + 64], the cache's rows [slots, 576]
};

constexpr int kOwnBarrier = 1;  // and the next: all warps of one warpgroup

/// Tiles are numbered over all runs that a block takes: their parity says which stage and which warpgroup has them.
struct TilePlace {
  int stage;
  uint32_t phase;
  __device__ explicit TilePlace(uint32_t number) : stage(static_cast<int>(number & 1)), phase(number >> 1 & 1) {}
};

// ---- Runs: one warp finds them for all others ------------------------------------------------------------------------------------------------

constexpr int kRunReaders = 11;  // warps that copy and multiply

__device__ __forceinline__ void planRuns(const MlaDecodeParams& p, const UnitCut& cut, UnitShared& shared) {
  RingPlace<2> at;
  const auto tell = [&](const Run& run) {
    wait(&shared.runEmpty[at.stage], at.phase ^ 1);
    if ((threadIdx.x & 31) == 0) {
      shared.run[at.stage] = run;
      arrive(&shared.runFull[at.stage]);
    }
    __syncwarp();
    at.next();
  };
  const int32_t block = static_cast<int32_t>(blockIdx.x), group = block / cut.shares;
  forRuns(p, cut, block - group * cut.shares, group * kUnitHeads, tell);
  tell(Run{});
}

/// f(Run, its number, number of its first tile) for all of the block's runs. A whole warp calls.
template <class F>
__device__ __forceinline__ void followRuns(UnitShared& shared, const F& f) {
  RingPlace<2> at;
  for (uint32_t turn = 0, number = 0;; ++turn) {
    wait(&shared.runFull[at.stage], at.phase);
    // Out of lane 0: so the compiler knows that warps do not diverge by it, which the matrix instructions want.
    const int32_t word = reinterpret_cast<const int32_t*>(&shared.run[at.stage])[(threadIdx.x & 31) % (sizeof(Run) / sizeof(int32_t))];
    const auto its = [&](int i) { return __shfl_sync(kAllLanes, word, i); };
    const Run run{its(0), its(1), its(2), its(3), its(4), its(5), its(6)};
    __syncwarp();
    if ((threadIdx.x & 31) == 0) arrive(&shared.runEmpty[at.stage]);
    if (run.end == 0) return;
    f(run, turn, number);
    number += static_cast<uint32_t>(run.tiles());
    at.next();
  }
}
static_assert(sizeof(Run) == 7 * sizeof(int32_t));

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

  /// A run's query and tiles, the first of which has the number `number`. The query comes from the launch before; what is in the cache is older.
  __device__ void run(const Run& run, uint32_t turn, uint32_t number) const {
    const int32_t* blocks = p_.blockTables + p_.rowSlot[run.row] * p_.maxBlocks;
    int32_t key = run.key;
    tile(number++, blocks, key, run.end - key);
    if (part_ == kRope) query(turn, run.row, run.head);
    while ((key += kTileKeys) < run.end) tile(number++, blocks, key, run.end - key);
  }

 private:
  /// [q_lat | q_rope] of 64 heads, where the last run's have been read.
  __device__ void query(uint32_t turn, int32_t row, int32_t head) const {
    if (turn == 0) awaitPrevious();
    wait(&shared_.queryEmpty, (turn & 1) ^ 1);
    if (lane_ == 0) arriveExpecting(&shared_.queryFull, kPanels * kPanelBytes);
    __syncwarp();
    const int pair = row * static_cast<int>(p_.heads) + head;
    if (lane_ < kValuePanels) copyBox(shared_.query[lane_], &maps_.latent, &shared_.queryFull, 64 * lane_, pair, policy_);
    if (lane_ == kRopePanel) copyBox(shared_.query[kRopePanel], &maps_.rope, &shared_.queryFull, static_cast<int>(p_.nope), pair, policy_);
  }

  /// Keys [first, first + keys) of a row (at most 64), to the place of tile `number`. What lies behind the keys stays as it is, up to a page.
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

  const MlaDecodeParams& p_;
  const UnitMaps& maps_;
  UnitShared& shared_;
  Part part_;
  int lane_, pageKeys_, panel_, page_;
  uint64_t policy_;
};

// ---- A warpgroup that multiplies -------------------------------------------------------------------------------------------------------------

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

  /// The sums so far, for weights relative to a new maximum.
  __device__ __forceinline__ void rescale(float low, float high) {
    total[0] *= low, total[1] *= high;
    if (__all_sync(kAllLanes, low == 1.0f && high == 1.0f)) return;
#pragma unroll
    for (int j = 0; j < 128; j += 4) latent[j] *= low, latent[j + 1] *= low, latent[j + 2] *= high, latent[j + 3] *= high;
  }

  /// This half's columns of a tile's values.
  __device__ __forceinline__ uint64_t values(int stage) const { return rowsAcrossK(shared.tile[stage][half * (kValuePanels / 2)], kPanelBytes); }

  /// Starts adding the other warpgroup's tile: its weights, maximum and sum come through shared memory.
  __device__ __forceinline__ void startOthersValues(TilePlace at) {
    wait(&shared.weights[at.stage], at.phase);
    rescale(shared.rescale[at.stage][row], shared.rescale[at.stage][row + 8]);
    maximum[0] = shared.maximum[at.stage][row], maximum[1] = shared.maximum[at.stage][row + 8];
    total[0] += shared.sum[at.stage][row], total[1] += shared.sum[at.stage][row + 8];
    const uint64_t weights = rowsOfK(shared.tile[at.stage][kRopePanel]), columns = values(at.stage);
    beginProducts();
#pragma unroll
    for (int k = 0; k < kTileKeys / 16; ++k) productBf16<256, true>(latent, furtherOn(weights, 32 * k), furtherOn(columns, 16 * 128 * k));
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
    rescale(factor[0], factor[1]);
    total[0] += sum[0], total[1] += sum[1];
    const uint64_t columns = values(at.stage);
    beginProducts();
#pragma unroll
    for (int k = 0; k < kTileKeys / 16; ++k) productBf16<256, true>(latent, weights[k], furtherOn(columns, 16 * 128 * k));
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
    begin();
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

  // ---- What becomes of a unit's sums -----------------------------------------------------------------------------------------------------------

  /// f(r, sums as merge_units.cuh has their columns, first column of the 16 and those of this half before it) for all heads of this thread that there are.
  template <class F>
  __device__ __forceinline__ void forSums(const F& f) {
#pragma unroll
    for (int r = 0; r < 2; ++r)
#pragma unroll
      for (int i = 0; i < 16; ++i) f(r, latent[8 * i + 2 * r], latent[8 * i + 2 * r + 1], latent[8 * i + 4 + 2 * r], latent[8 * i + 5 + 2 * r], 256 * half + 16 * i);
  }

  /// Adds this unit to the row's before it, whose sums lie in memory and whose weights are `merge`'s; the result is in registers.
  __device__ __forceinline__ void addTo(const float* sums, RunningMerge (&merge)[2], int heads) {
#pragma unroll
    for (int r = 0; r < 2; ++r) merge[r].add(maximum[r], total[r]);
#pragma unroll
    for (int part = 0; part < 4; ++part) {
      float4 before[2][4];
#pragma unroll
      for (int r = 0; r < 2; ++r)
#pragma unroll
        for (int i = 0; i < 4; ++i)
          before[r][i] = row + 8 * r < heads ? __ldcg(reinterpret_cast<const float4*>(sums + (row + 8 * r) * kHopperRank + 256 * half + 16 * (4 * part + i) + 4 * (lane & 3))) : make_float4(0, 0, 0, 0);
#pragma unroll
      for (int r = 0; r < 2; ++r)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          float* mine = latent + 8 * (4 * part + i) + 2 * r;
          mine[0] = merge[r].apply(before[r][i].x, mine[0]), mine[1] = merge[r].apply(before[r][i].y, mine[1]);
          mine[4] = merge[r].apply(before[r][i].z, mine[4]), mine[5] = merge[r].apply(before[r][i].w, mine[5]);
        }
    }
  }

  __device__ __forceinline__ void storeSums(float* sums, int heads) {
    forSums([&](int r, float a, float b, float c, float d, int column) {
      if (row + 8 * r < heads) __stcg(reinterpret_cast<float4*>(sums + (row + 8 * r) * kHopperRank + column + 4 * (lane & 3)), make_float4(a, b, c, d));
    });
  }
  __device__ __forceinline__ void storeWeights(float2* to, int heads, float most, float sum, int r) const {
    if (half == 0 && (lane & 3) == 0 && row + 8 * r < heads) to[row + 8 * r] = make_float2(most, sum);
  }

  /// The row's latents, to their place.
  __device__ __forceinline__ void storeLatents(Bf16* to, const RunningMerge (&merge)[2], int heads) {
    const float inverse[2] = {merge[0].inverse(), merge[1].inverse()};
    forSums([&](int r, float a, float b, float c, float d, int column) {
      const uint2 columns = pairColumns(make_float4(a * inverse[r], b * inverse[r], c * inverse[r], d * inverse[r]));
      if (row + 8 * r < heads) *reinterpret_cast<uint2*>(to + (row + 8 * r) * kHopperRank + column + pairedColumn(lane & 3)) = columns;
    });
  }
};

/// A run: its units one after the other. Where it begins with the row's first unit, the later ones are added to it, and what is left of the whole row is
/// its latents; otherwise each unit leaves its own sums.
__device__ __forceinline__ void attendRun(const MlaDecodeParams& p, Multiplier& m, const Run& run, uint32_t number) {
  const int heads = min(kUnitHeads, static_cast<int>(p.heads) - run.head);
  const bool chain = run.key == 0, whole = run.whole();
  RunningMerge merge[2];
  float* const firstSums = unitSums(p, run.result, run.head);
  float2* const firstWeights = unitWeights(p, run.result, run.head);
  for (int32_t u = 0, key = run.key; key < run.end; ++u, key += run.unitKeys) {
    const bool last = run.end - key <= run.unitKeys;
    m.unit(number, min(run.unitKeys, run.end - key), last);
    number += static_cast<uint32_t>(run.unitKeys / kTileKeys);
    float2* const weights = firstWeights + u * p.heads;
    if (!chain) {
      m.storeSums(firstSums + u * p.heads * kHopperRank, heads);
#pragma unroll
      for (int r = 0; r < 2; ++r) m.storeWeights(weights, heads, m.maximum[r], m.total[r], r);
      continue;
    }
    if (u > 0) m.addTo(firstSums, merge, heads);
    else merge[0].add(m.maximum[0], m.total[0]), merge[1].add(m.maximum[1], m.total[1]);
    if (!last || !whole) m.storeSums(firstSums, heads);
    else m.storeLatents(static_cast<Bf16*>(p.qLatent.data) + (run.row * p.heads + run.head) * kHopperRank, merge, heads);
    if (whole) continue;  // nobody will ask
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      if (u > 0) m.storeWeights(weights, heads, 0, 0, r);
      if (last) m.storeWeights(firstWeights, heads, merge[r].most, merge[r].total, r);
    }
  }
}

__global__ void __launch_bounds__(kUnitThreads, 1) attendUnits(const __grid_constant__ MlaDecodeParams p, const __grid_constant__ UnitMaps maps, const __grid_constant__ UnitCut cut) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ unsigned char sharedBytes[];
  UnitShared& shared = *reinterpret_cast<UnitShared*>(sharedBytes + (-sharedAddress(sharedBytes) & 1023));
  if (threadIdx.x == 0) {
    prefetchMap(&maps.cache), prefetchMap(&maps.latent), prefetchMap(&maps.rope);
    initBarrier(&shared.queryFull, 1);
    initBarrier(&shared.queryEmpty, 8);  // a warp is one arrival
    for (int stage = 0; stage < 2; ++stage) {
      for (int panel = 0; panel < kPanels; ++panel) initBarrier(&shared.full[stage][panel], 1);
      for (int part = 0; part < kParts; ++part) initBarrier(&shared.empty[stage][part], 4);
      initBarrier(&shared.weights[stage], 4);
      initBarrier(&shared.runFull[stage], 1);
      initBarrier(&shared.runEmpty[stage], kRunReaders);
    }
    fenceBarriers();
  }
  __syncthreads();
  // Lengths, tables and the cache are older than the launch before this one, which only absorbed the queries: all that has to be awaited are those.
  if (threadIdx.x < 128) {
    fewerRegisters<56>();
    const int warp = static_cast<int>(threadIdx.x / 32);
    if (warp == kParts) {
      planRuns(p, cut, shared);
    } else {
      const Copies copies(p, maps, shared, static_cast<Part>(warp));
      followRuns(shared, [&](const Run& run, uint32_t turn, uint32_t number) { copies.run(run, turn, number); });
    }
    awaitPrevious();
  } else {
    moreRegisters<224>();
    awaitThenLetNextBegin();
    Multiplier m(shared, p.softmaxScale);
    followRuns(shared, [&](const Run& run, uint32_t turn, uint32_t number) {
      wait(&shared.queryFull, turn & 1);
      attendRun(p, m, run, number);
    });
  }
#else
  awaitPrevious();
#endif
}

}  // namespace
}  // namespace longcat::cuda
