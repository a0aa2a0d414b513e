// How Hopper's attention cuts its work. All rows' work stands in a line, one row after the other, and each block of a group of heads takes a piece of it
// as long as the others' (its share). Every second row comes first, then those between: two queries of one sequence, whose rows are neighbours, then lie
// half a line apart, with two blocks that are at the same keys at the same time, and memory gives these once. Where rows may be cut is one of two things:
//   units    a row's keys are cut in units by the row's length alone. Each unit begins with empty sums, and units are added in ascending order
//            (merge_units.cuh): who attends which units changes no bit.
//   pieces   a row is cut where shares end, at any tile: nothing is cut or added that would not have to be, but the bits depend on the batch.
#pragma once

#include "ops/mla_decode/live.cuh"
#include "ops/mla_decode/unit_cut.h"

namespace longcat::cuda {
namespace {

constexpr int kUnitHeads = 64;  // most heads that go together
constexpr int kTileKeys = 64;   // keys that go together

static_assert(kSmallUnits.grain % kTileKeys == 0 && kUnits.grain % kTileKeys == 0);

__host__ __device__ constexpr int32_t unitKeys(UnitRule rule, int32_t keys) {
  int32_t each = rule.grain;
  while (static_cast<int64_t>(each) * rule.most < keys) each *= 2;
  return each;
}

// Work is measured in parts of a tile.
constexpr int32_t kTileWork = 256;
constexpr int32_t kBeginWork = 2 * kTileWork;             // of a unit or a row, beyond its tiles
constexpr int32_t kLeastTiles = 2;                        // of a piece: a cut nearer to an end of the row goes there
constexpr int32_t kLeastShare = kLeastTiles * kTileWork;  // of pieces

/// A row as the line has it.
struct RowWork {
  int32_t keys = 0, tiles = 0;
  int32_t unitKeys = 0, units = 0;  // where it is cut in units
  int32_t step = 0;                 // work of what had better stay together: a whole unit, or the row
  int32_t all = 0;

  __device__ RowWork(const UnitCut& cut, int32_t length) {
    if (length <= 0) return;
    keys = length, tiles = (length - 1) / kTileKeys + 1;
    if (!cut.pieces) unitKeys = longcat::cuda::unitKeys(cut.rule, length), units = (length - 1) / unitKeys + 1;
    step = min(tiles, cut.pieces ? tiles : unitKeys / kTileKeys) * kTileWork + kBeginWork;
    all = cut.pieces ? step : units * step;
  }

  /// The key that a share which ends `place` behind the row's beginning in the line leaves to the next one.
  __device__ int32_t keyAt(const UnitCut& cut, int32_t place) const {
    if (place <= 0) return 0;
    if (!cut.pieces) return place >= all ? keys : min(keys, (place - 1) / step * unitKeys + unitKeys);
    const int32_t tile = (place - kBeginWork) / kTileWork;
    return tile < kLeastTiles ? 0 : tile > tiles - kLeastTiles ? keys : tile * kTileKeys;
  }
};

/// The line of all decode rows, and the shares of a group of heads. A row's turn is its number in the line. Whole warps call.
class WorkLine {
 public:
  __device__ WorkLine(const MlaDecodeParams& p, const UnitCut& cut) : p_(p), cut_(cut) {
    const Live live = liveOf(p);
    first_ = static_cast<int32_t>(live.begin), rows_ = max(static_cast<int32_t>(live.rows) - first_, 0);
    int32_t all = 0, largest = 1;
    for (int32_t turn = lane(); turn < rows_; turn += 32) {
      const RowWork work = workOf(turn);
      all += work.all, largest = max(largest, work.step);
    }
    all = warpSum(all), largest = warpMax(largest);
    // Pieces leave a result for each share and one more for each row but the first: so many shares `partial` has room for.
    shares_ = cut.pieces ? static_cast<int32_t>(min(static_cast<int64_t>(cut.shares), p.maxSplits - rows_ + 1)) : cut.shares;
    shares_ = max(shares_, 1);
    each_ = shareOf(all, largest);
  }

  __device__ int32_t rows() const { return rows_; }
  __device__ int32_t rowOf(int32_t turn) const { return first_ + (turn < firstHalf() ? 2 * turn : 2 * (turn - firstHalf()) + 1); }
  __device__ int32_t turnOf(int32_t row) const { return (row - first_) / 2 + ((row - first_) & 1 ? firstHalf() : 0); }
  __device__ RowWork workOf(int32_t turn) const { return RowWork(cut_, turn < rows_ ? p_.positions[rowOf(turn)] + 1 : 0); }

  /// Where share `share` ends.
  __device__ int32_t endOf(int32_t share) const { return share < 0 ? 0 : share >= shares_ - 1 ? INT32_MAX : (share + 1) * each_; }

  /// The partial results of the row at `turn`, which lie one after the other: the first, and how many. None where one block has the whole row.
  __device__ __forceinline__ int2 resultsOf(int32_t turn) const {
    int32_t before = 0, unitsBefore = 0;  // of the rows before
    for (int32_t t = lane(); t < turn; t += 32) {
      const RowWork work = workOf(t);
      before += work.all, unitsBefore += work.units;
    }
    before = warpSum(before), unitsBefore = warpSum(unitsBefore);
    const RowWork work = workOf(turn);
    if (work.keys == 0) return make_int2(0, 0);
    // The first share whose end leaves something behind, and the first that leaves nothing.
    int32_t from = min(before / each_, shares_ - 1);
    while (work.keyAt(cut_, placeIn(from, before)) == 0) ++from;
    if (work.keyAt(cut_, placeIn(from, before)) == work.keys) return make_int2(0, 0);
    if (!cut_.pieces) return make_int2(unitsBefore, work.units);
    int32_t to = min((before + work.all) / each_, shares_ - 1);
    while (to > from && work.keyAt(cut_, placeIn(to - 1, before)) == work.keys) --to;
    while (work.keyAt(cut_, placeIn(to, before)) < work.keys) ++to;
    return make_int2(from + turn, to - from + 1);
  }
  /// Where a share ends, as seen from a place in the line.
  __device__ int32_t placeIn(int32_t share, int32_t beginning) const {
    const int32_t end = endOf(share);
    return end == INT32_MAX ? end : end - beginning;
  }

 private:
  static __device__ int lane() { return static_cast<int>(threadIdx.x & 31); }
  __device__ int32_t firstHalf() const { return (rows_ + 1) / 2; }

  /// A share's work: an even part of all, or as much more as lets the largest rows (units) be shared out evenly.
  __device__ int32_t shareOf(int32_t all, int32_t largest) const {
    const int32_t even = max((all + shares_ - 1) / shares_, cut_.pieces ? kLeastShare : 1);
    const int32_t together = (even + largest - 1) / largest * largest;
    if (!cut_.pieces) return together;
    const int32_t parts = largest / even, aligned = parts > 0 ? (largest + parts - 1) / parts : together;
    return aligned <= even + even / 8 ? aligned : even;
  }

  const MlaDecodeParams& p_;
  const UnitCut& cut_;
  int32_t first_, rows_, shares_, each_;  // rows: how many
};

/// Keys [key, end) of a row's `keys`, for the heads from `head` on: what one block attends of it, in units of `unitKeys`.
struct Run {
  int32_t row, head, keys;
  int32_t key, end, unitKeys;
  int32_t result;  // place of the first unit's partial results; the other units' follow
  int32_t slot;    // the row's

  __device__ __forceinline__ int32_t tiles() const { return (end - key + kTileKeys - 1) / kTileKeys; }
  __device__ __forceinline__ bool whole() const { return key == 0 && end == keys; }
};

/// The runs of a share, in order: f(Run). A whole warp calls.
template <class F>
__device__ __forceinline__ void forRuns(const MlaDecodeParams& p, const UnitCut& cut, int32_t share, int32_t head, const F& f) {
  const WorkLine line(p, cut);
  int32_t workBefore = 0, unitsBefore = 0;
  for (int32_t base = 0; base < line.rows() && workBefore < line.endOf(share); base += 32) {
    const int32_t turn = base + static_cast<int32_t>(threadIdx.x & 31);
    const RowWork work = line.workOf(turn);
    const int32_t workEnd = workBefore + warpInclusiveSum(work.all), unitsEnd = unitsBefore + warpInclusiveSum(work.units), beginning = workEnd - work.all;
    Run mine{line.rowOf(turn), head, work.keys, 0, 0, 0, 0, turn < line.rows() ? p.rowSlot[line.rowOf(turn)] : 0};
    if (work.keys > 0) {
      mine.key = share == 0 ? 0 : work.keyAt(cut, line.placeIn(share - 1, beginning)), mine.end = work.keyAt(cut, line.placeIn(share, beginning));
      mine.unitKeys = cut.pieces ? (mine.end - mine.key + kTileKeys - 1) / kTileKeys * kTileKeys : work.unitKeys;
      mine.result = cut.pieces ? share + turn : unitsEnd - work.units + mine.key / work.unitKeys;
    }
    for (uint32_t here = __ballot_sync(kAllLanes, mine.key < mine.end); here; here &= here - 1) {
      const int at = __ffs(static_cast<int>(here)) - 1;
      const auto its = [&](int32_t v) { return __shfl_sync(kAllLanes, v, at); };
      f(Run{its(mine.row), head, its(mine.keys), its(mine.key), its(mine.end), its(mine.unitKeys), its(mine.result), its(mine.slot)});
    }
    workBefore = __shfl_sync(kAllLanes, workEnd, 31), unitsBefore = __shfl_sync(kAllLanes, unitsEnd, 31);
  }
}

}  // namespace
}  // namespace longcat::cuda
