// Products of few rows on Hopper (gemm_few.cuh): what a block keeps in shared memory, and the rings that weights pass through.
#pragma once

#include "cuda/hopper/barrier.cuh"
#include "cuda/hopper/copy.cuh"
#include "cuda/mma.cuh"

namespace longcat::cuda::few {

constexpr int kTile = 64;                     // weight rows of a warpgroup
constexpr int kMultipliers = 256, kAdders = 64, kThreads = 384;
constexpr int kStageBytes = kTile * 128;      // 128 bytes of each weight row
constexpr int kSumBytes = 2 * kTile * 4;     // of both warpgroups' sums, for a row of activations
constexpr int kMostColumns = 96;              // rows of activations of an item
constexpr int kMostStages = 12, kMostBuffers = 2;
constexpr int kMultipliersMeet = 1, kAddersMeet = 2;  // barriers by number

/// How a launch cuts its shared memory.
struct Plan {
  int columns;     // most rows of activations of an item
  int stages;      // of each warpgroup's ring of weights
  int panelBytes;  // for the activations of a lane of k, or as much of it as there is room for
  int buffers;     // for sums of the lanes
  int rowScales;   // floats for the activations' scales
};

/// Which stage or buffer is next, and in which phase of its barriers.
struct Place {
  int at = 0;
  uint32_t phase = 0;
  __device__ __forceinline__ void next(int count) {
    if (++at == count) at = 0, phase ^= 1;
  }
};

/// Everything in shared memory. `which`: of which warpgroup.
struct Shared {
  unsigned char* panels;  // activations
  unsigned char* rings;   // weights
  unsigned char* sums;    // lanes' sums of the outputs that this block owns
  float* rowScales;
  float* weightScales;    // one a stage
  Barrier* barriers;
  int* prefix;
  int stages, sumsBytes;

  __device__ Shared(unsigned char* base, const Plan& plan) : panels(base), stages(plan.stages), sumsBytes(plan.columns * kSumBytes) {
    rings = panels + plan.panelBytes;
    sums = rings + 2 * stages * kStageBytes;
    rowScales = reinterpret_cast<float*>(sums + plan.buffers * sumsBytes);
    barriers = reinterpret_cast<Barrier*>(rowScales + plan.rowScales);
    weightScales = reinterpret_cast<float*>(barriers + kBarriers);
    prefix = reinterpret_cast<int*>(weightScales + 2 * kMostStages);
  }
  static constexpr int kBarriers = 4 * kMostStages + 2 * kMostBuffers + 2;
  /// Bytes of barriers and of weights' scales.
  static constexpr int64_t kRest = kBarriers * 8 + 2 * kMostStages * 4;

  __device__ __forceinline__ unsigned char* stage(int which, int at) const { return rings + (which * stages + at) * kStageBytes; }
  __device__ __forceinline__ float* scale(int which, int at) const { return weightScales + which * kMostStages + at; }
  __device__ __forceinline__ Barrier* full(int which, int at) const { return barriers + which * kMostStages + at; }
  __device__ __forceinline__ Barrier* empty(int which, int at) const { return barriers + (2 + which) * kMostStages + at; }
  __device__ __forceinline__ unsigned char* buffer(int at) const { return sums + at * sumsBytes; }
  /// This block's buffer has all lanes, and its own warps have sent what they had; all owners have added what was sent before.
  __device__ __forceinline__ Barrier* sumsFull(int at) const { return barriers + 4 * kMostStages + at; }
  __device__ __forceinline__ Barrier* sumsFree(int at) const { return barriers + 4 * kMostStages + kMostBuffers + at; }
  /// The half of the panels has what was fetched ahead of time.
  __device__ __forceinline__ Barrier* panelsFull(int half) const { return barriers + 4 * kMostStages + 2 * kMostBuffers + half; }

  /// Every thread of the block calls: a barrier each.
  __device__ __forceinline__ void initialise(int lanes) const {
    Barrier* own = barriers + threadIdx.x;
    if (own >= barriers + kBarriers) return;
    if (own < empty(0, 0)) initBarrier(own, 32);
    else if (own < sumsFull(0)) initBarrier(own, 4);
    else if (own < sumsFree(0)) initBarrier(own, 1 + kMultipliers / 32);  // and the bytes of all lanes' sums
    else if (own < panelsFull(0)) initBarrier(own, lanes);
    else initBarrier(own, kAdders);
    fenceBarriers();
  }
};

/// A part of the panels, for the activations of one row tile.
struct Panels {
  unsigned char* data;
  float* rowScales;
  int bytes;
};

/// Which panels the row tiles that follow each other in a block have. A tile that needs no more than half of them takes a half in turn; where two
/// such tiles meet, the second one's activations are fetched ahead of time, while the first is multiplied.
struct PanelTurns {
  int half = 0;
  bool narrow = false, ahead = false;
  uint32_t phases = 0;  // of panelsFull, a bit each

  /// The next tile, which fits in a half or not.
  __device__ __forceinline__ void next(bool fits) {
    ahead = narrow && fits;
    narrow = fits;
    half = fits ? half ^ 1 : 0;
  }
  __device__ __forceinline__ Panels of(const Shared& shared, const Plan& plan) const {
    const int part = narrow ? half : 0, parts = narrow ? 2 : 1;
    return {shared.panels + part * (plan.panelBytes / 2), shared.rowScales + part * (plan.rowScales / 2), plan.panelBytes / parts};
  }
  /// A tile that was fetched ahead of time is there.
  __device__ __forceinline__ void await(const Shared& shared) {
    wait(shared.panelsFull(half), (phases >> half) & 1);
    phases ^= 1u << half;
  }
};

/// A weight stage as a warp sees it.
struct Stage {
  const unsigned char* bytes;  // of the stage
  int place;                   // of this thread's row and piece, swizzled
  const float* scale;
  Barrier* empty;

  __device__ __forceinline__ void load(uint32_t (&a)[4], int x) const { loadMatrix4(a, bytes + (place ^ (x << 5))); }
  /// The warp has read all it needs.
  __device__ __forceinline__ void release() const {
    __syncwarp();
    if ((threadIdx.x & 31) == 0) arrive(empty);
  }
};

/// A warpgroup's weights, stage by stage.
struct Ring {
  const Shared& shared;
  int which, place;  // of the thread, as in Stage
  Place now = {};

  /// When its weights are there.
  __device__ __forceinline__ Stage next() {
    const int at = now.at;
    wait(shared.full(which, at), now.phase);
    now.next(shared.stages);
    return {shared.stage(which, at), place, shared.scale(which, at), shared.empty(which, at)};
  }
};

}  // namespace longcat::cuda::few
