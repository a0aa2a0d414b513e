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
__device__ __forceinline__ ReceivedRow receivedRow(const int32_t* firstRow, int64_t row) {
  int64_t source = 0;
  while (row >= firstRow[source + 1]) ++source;
  return {source, row - firstRow[source]};
}

/// Adds up the sources' counts, by one thread. No more rows are believed than a source may send.
__device__ __forceinline__ void numberSources(const std::byte* window, int64_t ranks, int64_t capacity, int32_t* firstRow) {
  firstRow[0] = 0;
  for (int64_t s = 0; s < ranks; ++s) {
    const int32_t count = reinterpret_cast<const WindowFlag*>(window + rowsFlagOffset(s))->count;
    firstRow[s + 1] = firstRow[s] + static_cast<int32_t>(clampCount(count, capacity));
  }
}

/// The experts that received rows chose, for the plan.
struct ReceivedChoices {
  const EpDispatchParams& p;
  const int32_t* firstRow;
  int64_t slots, experts;
  int32_t* expertStart;

  __device__ __forceinline__ ReceivedChoices(const EpDispatchParams& of, const int32_t* first)
      : p(of), firstRow(first), slots(of.slots), experts(of.localExperts), expertStart(of.expertStart) {}

  __device__ __forceinline__ int32_t expert(int64_t i) const {
    const int64_t row = rowOf(i);
    const ReceivedRow r = receivedRow(firstRow, row);
    return reinterpret_cast<const int32_t*>(p.window + p.layout.ids)[(r.source * p.windowTokens + r.j) * slots + i - row * slots];
  }
  __device__ __forceinline__ void place(int64_t i, int64_t row, int32_t entry) const {
    const ReceivedRow r = receivedRow(firstRow, row);
    p.slotPlan[(r.source * p.capacity + r.j) * slots + i - row * slots] = entry;
    p.planRow[entry] = static_cast<int32_t>(r.source * p.receivedStride + r.j);
  }
  /// Choice i is none.
  __device__ __forceinline__ void leaveOut(int64_t i) const {
    const int64_t row = rowOf(i);
    const ReceivedRow r = receivedRow(firstRow, row);
    p.slotPlan[(r.source * p.capacity + r.j) * slots + i - row * slots] = -1;
  }

 private:
  __device__ __forceinline__ int64_t rowOf(int64_t i) const { return static_cast<uint32_t>(i) / static_cast<uint32_t>(slots); }
};

}  // namespace longcat::cuda
