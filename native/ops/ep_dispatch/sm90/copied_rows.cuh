// ep_dispatch on Hopper: rows as they are, by the copy engine. One warp of a block asks for stretches of rows, a ring of them, and for their way from there
// into the ranks' windows, a lane for each rank. No thread holds a number, so that as much is under way as the ring has room for.
//
// How a receiver comes to see them: a lane waits until what its copies wrote can be seen by itself, which over NVLink takes the other card's word; the
// block's barrier hands that on to the thread that raises the flag behind a fence of system scope (raiseFlags). The copies are of another proxy than the
// flag; awaitStores() fences the two.
#pragma once

#include "cuda/exchange.cuh"
#include "cuda/hopper/copy.cuh"
#include "ops/ep_dispatch/destinations.cuh"

namespace longcat::cuda {

/// Rows are whole multiples of 16 bytes, and begin at such.
struct CopiedRows {
  static constexpr int kStages = 10;
  static constexpr int kBytes = 6 << 10;  // of a stretch, at most
  static constexpr int kBehind = 3;       // stretches whose stores may still be reading when a stage is filled anew

  struct Ring {
    unsigned char stage[kStages][kBytes];
    Barrier full[kStages];
  };
  static constexpr size_t kRingBytes = sizeof(Ring);

  /// Share `block` of `blocks` of all rows' stretches. All threads of the block call. sharedRing: kRingBytes.
  static __device__ __forceinline__ void carry(const EpDispatchParams& p, int64_t rows, int block, int blocks, void* shared, void* sharedRing) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    Ring& ring = *static_cast<Ring*>(sharedRing);
    const int64_t rowBytes = p.width * (p.activation == DType::bf16 ? 2 : 4), ofRow = (rowBytes + kBytes - 1) / kBytes, all = rows * ofRow;
    const int64_t share = (all + blocks - 1) / blocks, begin = block * share, end = begin + share < all ? begin + share : all;
    if (begin >= end) return;

    const bool carries = threadIdx.x < 32;
    const int lane = static_cast<int>(threadIdx.x) & 31;
    /// f(row, its byte where stretch n begins, bytes of it, its stage).
    const auto withStretch = [&](int64_t n, const auto& f) {
      const int64_t row = static_cast<uint32_t>(n) / static_cast<uint32_t>(ofRow), at = (n - row * ofRow) * kBytes;
      f(row, at, static_cast<uint32_t>(rowBytes - at < kBytes ? rowBytes - at : kBytes), static_cast<int>((n - begin) % kStages));
    };
    const auto fetch = [&](int64_t n) {
      withStretch(n, [&](int64_t row, int64_t at, uint32_t bytes, int stage) {
        arriveExpecting(&ring.full[stage], bytes);
        copyBytes(ring.stage[stage], static_cast<const unsigned char*>(p.h.data) + row * rowBytes + at, bytes, &ring.full[stage]);
      });
    };
    if (threadIdx.x == 0) {
      for (Barrier& full : ring.full) initBarrier(&full, 1);
      fenceBarriers();
      fenceGlobalForCopies();
      for (int64_t n = begin; n < end && n < begin + kStages; ++n) fetch(n);  // on their way while the block finds out where to
    }

    Destinations to(p, shared);  // a barrier of the block is in it
    const int64_t first = begin / ofRow, last = (end - 1) / ofRow;
    const int64_t firstTile = last < kDispatchThreads ? 0 : first;
    to.skip(firstTile);
    int64_t n = begin;
    for (int64_t tile = firstTile; tile <= last; tile += kDispatchThreads) {
      to.look(tile, rows);
      const int64_t tileEnd = (tile + kDispatchThreads) * ofRow, until = tileEnd < end ? tileEnd : end;
      for (; carries && n < until; ++n) {
        withStretch(n, [&](int64_t row, int64_t at, uint32_t bytes, int stage) {
          wait(&ring.full[stage], static_cast<uint32_t>((n - begin) / kStages) & 1);
          for (int64_t r = lane; r < p.ranks; r += 32) {
            const int32_t place = to.placeOf(static_cast<int>(row - tile), r);
            if (place < 0) continue;
            const Target target = targetOf(p, r);
            storeBytes(target.window + p.layout.rows + (target.source * p.windowTokens + place) * rowBytes + at, ring.stage[stage], bytes);
          }
        });
        commitStores();
        const int64_t next = n - kBehind + kStages;  // has the stage of n - kBehind
        if (n - kBehind < begin || next >= end) continue;
        awaitStoresRead<kBehind>();
        __syncwarp();
        if (lane == 0) fetch(next);
      }
      __syncthreads();  // before the next look
    }
    if (carries) awaitStores();
#endif
  }
};

}  // namespace longcat::cuda
