// What the kernels of matrix products share: which rows and outputs a block works on, where its weights are, and what becomes of a sum.
#pragma once

#include "cuda/gemm.h"
#include "cuda/numbers.cuh"
#include "cuda/reduce.cuh"

namespace longcat::cuda {

__host__ __device__ inline int64_t outputsOf(const GemmProblem& p) { return p.groupStart ? p.stack.rows : p.weight.rows; }
__host__ __device__ inline int64_t depthOf(const GemmProblem& p) { return p.groupStart ? p.stack.columns : p.weight.columns; }
__host__ __device__ inline DType weightDtypeOf(const GemmProblem& p) { return p.groupStart ? p.stack.dtype : p.weight.dtype; }

/// One of a group's matrices.
struct Matrix {
  const unsigned char* data;
  const float* scale;
};
__device__ __forceinline__ Matrix matrixOf(const GemmProblem& p, int group, bool second) {
  if (!p.groupStart) {
    const WeightView& w = second ? p.weight2 : p.weight;
    return {static_cast<const unsigned char*>(w.data), w.scale};
  }
  const WeightStack& s = second ? p.stack2 : p.stack;
  return {reinterpret_cast<const unsigned char*>(s.data[group]), s.scale ? reinterpret_cast<const float*>(s.scale[group]) : nullptr};
}

/// Rows [row, rowEnd) of one group, at most a row tile, and the outputs from `output` on, at most an output tile.
struct WorkItem {
  int group;
  int64_t row, rowEnd, output;
};

/// prefix[g] = row tiles of the groups before g, prefix[groups] = all; prefixBytes() has room for that and what is behind it. Every thread
/// of the block calls, whole warps.
__device__ inline void countRowTiles(const GemmProblem& p, int rowTile, int* prefix) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5, groups = static_cast<int>(p.groups);
  int* ofWarp = prefix + groups + 1;
  int before = 0;
  for (int first = 0; first < groups; first += blockDim.x) {
    const int g = first + static_cast<int>(threadIdx.x);
    int sum = g < groups ? (__ldcg(p.groupStart + g + 1) - __ldcg(p.groupStart + g) + rowTile - 1) / rowTile : 0;
#pragma unroll
    for (int d = 1; d < 32; d <<= 1) {
      const int other = __shfl_up_sync(kAllLanes, sum, d);
      if (lane >= d) sum += other;
    }
    if (lane == 31) ofWarp[warp] = sum;
    __syncthreads();
    for (int w = 0; w < warps; ++w) {
      if (w < warp) sum += ofWarp[w];
    }
    if (g < groups) prefix[g + 1] = before + sum;
    for (int w = 0; w < warps; ++w) before += ofWarp[w];
    __syncthreads();
  }
  if (threadIdx.x == 0) prefix[0] = 0;
  __syncthreads();
}

/// The group of a row tile: the last one with prefix ≤ tile.
__device__ __forceinline__ int groupOfRowTile(const int* prefix, int groups, int tile) {
  int low = 0, high = groups;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (prefix[middle] <= tile) low = middle;
    else high = middle;
  }
  return low;
}

/// The items of a problem, numbered: groups ascending; in a group, bands of row tiles, in a band the row tiles of an output tile side by
/// side, so that weights and rows are read again while they are in the cache. Groups without rows have no items.
class Work {
 public:
  static constexpr int kBand = 16;

  /// Every thread of the block calls. `prefix`: prefixBytes() of shared memory, used where the problem is grouped.
  __device__ Work(const GemmProblem& p, int rowTile, int outputTile, int* prefix)
      : p_(p), rowTile_(rowTile), outputTile_(outputTile), outputTiles_(static_cast<int>((outputsOf(p) + outputTile - 1) / outputTile)), prefix_(prefix) {
    if (!p.groupStart) {
      const int64_t live = p.liveRows ? *p.liveRows : p.capacity;
      rows_ = live < p.capacity ? live : p.capacity;
      rowTiles_ = rows_ > 0 ? static_cast<int>((rows_ + rowTile - 1) / rowTile) : 0;
      return;
    }
    countRowTiles(p, rowTile, prefix);
    rowTiles_ = prefix[p.groups];
  }

  __device__ int items() const { return rowTiles_ * outputTiles_; }

  __device__ WorkItem at(int item) const {
    int group = 0, local = item, tiles = rowTiles_;
    int64_t begin = 0, end = rows_;
    if (p_.groupStart) {
      group = groupOfRowTile(prefix_, static_cast<int>(p_.groups), item / outputTiles_);
      local = item - prefix_[group] * outputTiles_;
      tiles = prefix_[group + 1] - prefix_[group];
      begin = p_.groupStart[group];
      end = p_.groupStart[group + 1];
    }
    const int band = local / (kBand * outputTiles_), inBand = local - band * kBand * outputTiles_;
    const int left = tiles - band * kBand, height = left < kBand ? left : kBand;
    const int output = inBand / height, tile = band * kBand + (inBand - output * height);
    const int64_t row = begin + static_cast<int64_t>(tile) * rowTile_;
    return {group, row, row + rowTile_ < end ? row + rowTile_ : end, static_cast<int64_t>(output) * outputTile_};
  }

 private:
  const GemmProblem& p_;
  int rowTile_, outputTile_, outputTiles_, rowTiles_ = 0;
  int* prefix_;
  int64_t rows_ = 0;
};

/// Where x has what row `row` reads; `row` is live.
__device__ __forceinline__ int64_t sourceRow(const GemmProblem& p, int64_t row) { return p.rowIndex ? p.rowIndex[row] : row; }

__device__ __forceinline__ float silu(float z) { return z / (1.0f + expf(-z)); }

/// Writes one result. `second`: the up product of Epilogue::swiglu.
template <bool kDual>
__device__ __forceinline__ void storeResult(const GemmProblem& p, int64_t row, int64_t output, float sum, float second) {
  float value = sum;
  if constexpr (kDual) value = silu(sum) * second;
  else if (p.bias.data) value += loadNumber(p.bias.data, p.bias.dtype, output);
  const int64_t at = row * p.outStride + output;
  if (p.outDtype == DType::bf16) static_cast<Bf16*>(p.out.data)[at] = numberOf<Bf16>(value);
  else static_cast<float*>(p.out.data)[at] = value;
}

/// Rows of a group, about: what kernels and tiles are chosen by.
inline int64_t expectedRows(const GemmProblem& p) {
  if (!p.groupStart) return p.capacity;
  return ((p.expected > 0 ? p.expected : p.capacity) + p.groups - 1) / p.groups;
}

/// Most items that the live rows may make, for the grid: by the capacity, since blocks without work cost less than work without blocks.
inline int64_t mostItems(const GemmProblem& p, int64_t rowTile, int64_t outputTile) {
  const int64_t tiles = (p.capacity + rowTile - 1) / rowTile + (p.groupStart ? (p.groups < p.capacity ? p.groups : p.capacity) : 0);
  return tiles * ((outputsOf(p) + outputTile - 1) / outputTile);
}
/// Shared memory for countRowTiles(): the prefix, and a number for each warp of a block.
inline int64_t prefixBytes(const GemmProblem& p) { return p.groupStart ? (p.groups + 1 + 32) * static_cast<int64_t>(sizeof(int)) : 0; }

}  // namespace longcat::cuda
