// What the kernels of mla_decode read alike: what is live in this step, from the counts in device memory; where a row's splits lie in
// the list; kv_b's FP8 scales.
#pragma once

#include "cuda/numbers.cuh"
#include "cuda/reduce.cuh"
#include "ops/mla_decode/params.h"
#include "ops/step_plan/params.h"

namespace longcat::cuda {
namespace {

/// The numbers of activations, which are T here.
template <class T>
__device__ __forceinline__ const T* numbersIn(const ConstActivations& activations) { return static_cast<const T*>(activations.data); }
template <class T>
__device__ __forceinline__ T* numbersIn(const Activations& activations) { return static_cast<T*>(activations.data); }

/// Rows [begin, rows) are decoded, over the first `splits` entries of the list.
struct Live {
  int64_t begin, rows, splits;
};

__device__ __forceinline__ Live liveOf(const MlaDecodeParams& p) {
  const int32_t rowCount = p.counts[numRows], prefillCount = p.counts[numPrefillRows], splitCount = p.counts[numSplits];
  const int64_t rows = clampCount(rowCount, p.capacity);
  return {clampCount(prefillCount, rows), rows, clampCount(splitCount, p.maxSplits)};
}

/// One entry of the split list: keys [first, first + keys) of a row.
struct Split {
  int64_t row;
  int32_t first, keys;
  const int32_t* blocks;  // the row's block table
};

__device__ __forceinline__ Split splitAt(const MlaDecodeParams& p, int64_t index) {
  const int32_t row = p.splits[2 * index], number = p.splits[2 * index + 1];
  const int32_t position = p.positions[row], slot = p.rowSlot[row], first = number * static_cast<int32_t>(kSplitKeys);
  const int32_t left = position + 1 - first;
  return {row, first, left < 0 ? 0 : left < static_cast<int32_t>(kSplitKeys) ? left : static_cast<int32_t>(kSplitKeys), p.blockTables + slot * p.maxBlocks};
}

/// The cache row (block · blockSize + offset) of the split's key j.
__device__ __forceinline__ int32_t cacheRow(const MlaDecodeParams& p, const Split& split, int32_t j) {
  const int32_t blockSize = static_cast<int32_t>(p.blockSize), position = split.first + j, block = position / blockSize;
  return split.blocks[block] * blockSize + (position - block * blockSize);
}

/// First of the list's entries that belongs to `row` or a later one: 32 probes at once. A whole warp calls.
__device__ __forceinline__ int64_t firstSplit(const MlaDecodeParams& p, int64_t splits, int64_t row) {
  const int lane = threadIdx.x & 31;
  int64_t low = 0, high = splits;
  while (low < high) {
    const int64_t step = (high - low + 31) / 32, probe = low + (lane + 1) * step - 1;
    const bool before = probe < high && p.splits[2 * probe] < row;
    low += __popc(__ballot_sync(kAllLanes, before)) * step;
    const int64_t end = low + step - 1;
    high = high < end ? high : end;
  }
  return low;
}

/// The FP8 scale of kv_b's number at (row, column).
__device__ __forceinline__ float weightScale(const WeightView& w, int64_t row, int64_t column) {
  return w.scale[row / kFp8Block * ((w.columns + kFp8Block - 1) / kFp8Block) + column / kFp8Block];
}

}  // namespace
}  // namespace longcat::cuda
