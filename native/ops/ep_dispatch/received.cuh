// ep_dispatch on a GPU: what came. Rows are numbered through, source after source, for the plan and for what unpacks them.
#pragma once

#include "cuda/exchange.cuh"
#include "ops/ep_dispatch/params.h"

namespace longcat::cuda {

/// A received row: the j-th that `source` sent.
struct ReceivedRow {
  int64_t source, j;
};

/// firstRow[s]: rows of the sources before s; firstRow[ranks]: of all.
__device__ __forceinline__ ReceivedRow receivedRow(const int32_t* firstRow, int64_t ranks, int64_t row) {
  int source = 0, beyond = static_cast<int>(ranks);  // it is one of [source, beyond)
  while (beyond - source > 1) {
    const int middle = (source + beyond) / 2;
    if (firstRow[middle] <= row) source = middle;
    else beyond = middle;
  }
  return {source, row - firstRow[source]};
}

/// Adds up the sources' counts, countOf(source), by one warp; lane source mod 32 asks. No more rows are believed than a source may send.
template <class CountOf>
__device__ __forceinline__ void numberSources(int64_t ranks, int64_t capacity, int32_t* firstRow, const CountOf& countOf) {
  const int lane = static_cast<int>(threadIdx.x) & 31;
  int32_t before = 0;
  for (int base = 0; base < ranks; base += 32) {
    const int source = base + lane;
    const int32_t count = source < ranks ? countOf(source) : 0;
    const int32_t upTo = before + warpInclusiveSum(static_cast<int32_t>(clampCount(count, capacity)));
    if (source < ranks) firstRow[source + 1] = upTo;
    before = __shfl_sync(kAllLanes, upTo, 31);
  }
  if (lane == 0) firstRow[0] = 0;
}

}  // namespace longcat::cuda
