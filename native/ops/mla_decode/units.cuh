// How Hopper's attention cuts its work. A row's keys are cut in units by the row's length alone; each unit begins with empty sums, and the units of
// a row are added in ascending order (merge_units.cuh). Who attends which units is another matter and changes no bit: blocks take runs of them.
#pragma once

#include "ops/mla_decode/live.cuh"

namespace longcat::cuda {
namespace {

constexpr int kUnitHeads = 64;  // heads that go together
constexpr int kTileKeys = 64;   // keys that go together

/// A unit has `grain` keys, or as often twice of that as leaves a row with at most `most` units; the last one has what is left.
struct UnitRule {
  int32_t grain, most;
};
constexpr UnitRule kUnitRule{1024, 16};
static_assert(kUnitRule.grain % kSplitKeys == 0);  // no more units than entries of the split list: `partial` has room for them
static_assert(kUnitRule.grain % kTileKeys == 0 && kUnitRule.most <= 32);

__host__ __device__ constexpr int32_t unitKeys(UnitRule rule, int32_t keys) {
  int32_t each = rule.grain;
  while (static_cast<int64_t>(each) * rule.most < keys) each *= 2;
  return each;
}
__host__ __device__ constexpr int32_t unitsOf(UnitRule rule, int32_t keys) {
  return keys <= 0 ? 0 : (keys - 1) / unitKeys(rule, keys) + 1;
}

/// Units of all decode rows before `row`: the first of its partial results. A whole warp calls.
__device__ __forceinline__ int32_t unitsBefore(const MlaDecodeParams& p, UnitRule rule, const Live& live, int64_t row) {
  int32_t units = 0;
  for (int64_t r = live.begin + (threadIdx.x & 31); r < row; r += 32) units += unitsOf(rule, p.positions[r] + 1);
  return warpSum(units);
}

/// Units [from, to) of a row's `units`, for the heads from `head` on.
struct Run {
  int32_t row, head;
  int32_t keys, unitKeys, units;  // of the row
  int32_t from, to;
  int32_t firstUnit;              // units of all rows before this one

  __device__ __forceinline__ int32_t firstKey() const { return from * unitKeys; }
  __device__ __forceinline__ int32_t endKey() const { return min(to * unitKeys, keys); }
  __device__ __forceinline__ int32_t tiles() const { return (endKey() - firstKey() + kTileKeys - 1) / kTileKeys; }
};

/// What a unit costs beyond its tiles, in tiles.
constexpr int32_t kUnitCost = 2;

/// A row as the share-out sees it.
struct RowCost {
  int32_t keys = 0, unitKeys = 0, units = 0, unit = 0;  // unit: cost of a whole one
  __device__ RowCost(UnitRule rule, int32_t length) {
    if (length <= 0) return;
    keys = length, unitKeys = longcat::cuda::unitKeys(rule, length), units = (length - 1) / unitKeys + 1;
    unit = min(unitKeys, (length + kTileKeys - 1) / kTileKeys * kTileKeys) / kTileKeys + kUnitCost;
  }
  __device__ int32_t all() const { return units * unit; }
};

__device__ __forceinline__ int32_t inclusiveSum(int32_t v) {
#pragma unroll
  for (int d = 1; d < 32; d <<= 1) {
    const int32_t lower = __shfl_up_sync(kAllLanes, v, d);
    if (static_cast<int>(threadIdx.x & 31) >= d) v += lower;
  }
  return v;
}

/// The runs of share `share` of `shares`, in order: f(Run). All units stand in a line, rows and groups of heads one after the other, and each share is
/// a piece of it as long as the others, in steps of the largest unit, so that equal rows are not cut where that gains nothing. A whole warp calls.
template <class F>
__device__ __forceinline__ void forRuns(const MlaDecodeParams& p, UnitRule rule, int32_t share, int32_t shares, const F& f) {
  const int lane = static_cast<int>(threadIdx.x & 31);
  const Live live = liveOf(p);
  const int32_t first = static_cast<int32_t>(live.begin), rows = static_cast<int32_t>(live.rows), groups = static_cast<int32_t>((p.heads + kUnitHeads - 1) / kUnitHeads);
  const auto costOf = [&](int32_t row) { return RowCost(rule, row < rows ? p.positions[row] + 1 : 0); };

  int32_t all = 0, largest = 1;
  for (int32_t base = first; base < rows; base += 32) {
    const RowCost row = costOf(base + lane);
    all += row.all() * groups;
    largest = max(largest, row.unit);
  }
  all = warpSum(all), largest = warpMax(largest);
  const int32_t least = (all + shares - 1) / shares, each = (least + largest - 1) / largest * largest;
  const int32_t low = share * each, high = low + each;

  int32_t costBefore = 0, unitsBefore = 0;
  for (int32_t base = first; base < rows && costBefore < high; base += 32) {
    const RowCost mine = costOf(base + lane);
    const int32_t cost = mine.all() * groups, end = costBefore + inclusiveSum(cost), unitsEnd = unitsBefore + inclusiveSum(mine.units);
    uint32_t here = __ballot_sync(kAllLanes, mine.units > 0 && end > low && end - cost < high);
    for (; here; here &= here - 1) {
      const int at = __ffs(static_cast<int>(here)) - 1;
      const auto its = [&](int32_t v) { return __shfl_sync(kAllLanes, v, at); };
      const RowCost row(rule, its(mine.keys));
      Run run{base + at, 0, row.keys, row.unitKeys, row.units, 0, 0, its(unitsEnd) - row.units};
      int32_t begin = its(end) - row.all() * groups;
      for (int32_t group = 0; group < groups; ++group, begin += row.all()) {
        const auto unitAt = [&](int32_t place) { return place <= begin ? 0 : min(row.units, (place - begin + row.unit - 1) / row.unit); };
        run.head = group * kUnitHeads, run.from = unitAt(low), run.to = unitAt(high);
        if (run.from < run.to) f(run);
      }
    }
    costBefore = __shfl_sync(kAllLanes, end, 31), unitsBefore = __shfl_sync(kAllLanes, unitsEnd, 31);
  }
}

}  // namespace
}  // namespace longcat::cuda
