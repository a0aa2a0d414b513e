// How Hopper's attention cuts a row's keys: in units, by the row's length alone. A unit gives one partial result; units are numbered row after
// row over the step's decode rows, and a partial result lies where its unit's number says.
#pragma once

#include "ops/mla_decode/live.cuh"

namespace longcat::cuda {
namespace {

/// At most `most` units a row, each a multiple of `grain` keys, the last one what is left.
struct UnitRule {
  int32_t grain, most;
};
static_assert(kSplitKeys == 256);  // a grain is no shorter than a split: there are no more units than entries of the split list, so `partial` holds them
constexpr UnitRule kUnitRule{256, 8};

__host__ __device__ constexpr int32_t unitKeys(UnitRule rule, int32_t keys) {
  const int32_t grains = (keys + rule.grain - 1) / rule.grain;
  return (grains + rule.most - 1) / rule.most * rule.grain;
}
__host__ __device__ constexpr int32_t unitsOf(UnitRule rule, int32_t keys) {
  return keys <= 0 ? 0 : (keys + unitKeys(rule, keys) - 1) / unitKeys(rule, keys);
}

/// Units of all decode rows before `row`. A whole warp calls.
__device__ __forceinline__ int64_t unitsBefore(const MlaDecodeParams& p, UnitRule rule, const Live& live, int64_t row) {
  int32_t units = 0;
  for (int64_t r = live.begin + (threadIdx.x & 31); r < row; r += 32) units += unitsOf(rule, p.positions[r] + 1);
  return warpSum(units);
}

/// Keys [first, first + keys) of a row.
struct Unit {
  int64_t row;
  int32_t first, keys;
};

/// Finds units by number. Numbers that are asked for ascend, so that each search goes on where the last one ended.
class UnitSearch {
 public:
  __device__ UnitSearch(const MlaDecodeParams& p, UnitRule rule) : p_(p), rule_(rule), live_(liveOf(p)), base_(live_.begin) {}

  /// False where there are no so many units. A whole warp calls.
  __device__ bool find(int64_t number, Unit* unit) {
    const int lane = threadIdx.x & 31;
    for (; base_ < live_.rows; base_ += 32) {
      const int32_t keys = base_ + lane < live_.rows ? p_.positions[base_ + lane] + 1 : 0, units = unitsOf(rule_, keys);
      int32_t end = units;  // of this row, counted from the first of these 32 on
#pragma unroll
      for (int d = 1; d < 32; d <<= 1) {
        const int32_t lower = __shfl_up_sync(kAllLanes, end, d);
        if (lane >= d) end += lower;
      }
      const int64_t within = number - before_;
      const uint32_t later = __ballot_sync(kAllLanes, end > within);
      if (later) {
        const int at = __ffs(static_cast<int>(later)) - 1;
        const int32_t rowKeys = __shfl_sync(kAllLanes, keys, at), begin = __shfl_sync(kAllLanes, end - units, at);
        const int32_t each = unitKeys(rule_, rowKeys), first = (static_cast<int32_t>(within) - begin) * each;
        const int32_t left = __shfl_sync(kAllLanes, rowKeys - first, 0), most = __shfl_sync(kAllLanes, each, 0);
        *unit = {base_ + at, first, left < most ? left : most};
        return true;
      }
      before_ += __shfl_sync(kAllLanes, end, 31);
    }
    return false;
  }

 private:
  const MlaDecodeParams& p_;
  UnitRule rule_;
  Live live_;
  int64_t base_, before_ = 0;  // the 32 rows looked at, and how many units lie before them
};

}  // namespace
}  // namespace longcat::cuda
