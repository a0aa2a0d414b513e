// Sums and maxima over a warp or a block, in one fixed order: a butterfly within each warp, then the warps' results by one of their own. Sums up to
// each lane or thread.
#pragma once

#include <cstdint>

namespace longcat::cuda {

constexpr unsigned kAllLanes = 0xffffffffu;

template <class T>
__device__ __forceinline__ T warpSum(T v) {
#pragma unroll
  for (int d = 16; d > 0; d >>= 1) v += __shfl_xor_sync(kAllLanes, v, d);
  return v;
}

template <class T>
__device__ __forceinline__ T warpMax(T v) {
#pragma unroll
  for (int d = 16; d > 0; d >>= 1) {
    const T other = __shfl_xor_sync(kAllLanes, v, d);
    v = other > v ? other : v;
  }
  return v;
}

/// The sum over this lane and those before it.
template <class T>
__device__ __forceinline__ T warpInclusiveSum(T v) {
#pragma unroll
  for (int d = 1; d < 32; d <<= 1) {
    const T before = __shfl_up_sync(kAllLanes, v, d);
    if (static_cast<int>(threadIdx.x & 31) >= d) v += before;
  }
  return v;
}

/// The block's sum, to every thread. `shared`: 32 values of T. blockDim.x is a multiple of 32; every thread calls.
template <class T>
__device__ T blockSum(T v, T* shared) {
  v = warpSum(v);
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
  __syncthreads();  // of an earlier use
  if (lane == 0) shared[warp] = v;
  __syncthreads();
  return warpSum(lane < warps ? shared[lane] : T(0));
}

/// The sum over this thread of the block and those before it. `shared`: 32 values of T. blockDim.x is a multiple of 32; every thread calls.
template <class T>
__device__ T blockInclusiveSum(T v, T* shared) {
  v = warpInclusiveSum(v);
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
  __syncthreads();  // of an earlier use
  if (lane == 31) shared[warp] = v;
  __syncthreads();
  const T total = lane < warps ? shared[lane] : T(0), upTo = warpInclusiveSum(total);
  return v + __shfl_sync(kAllLanes, upTo - total, warp);
}

/// The block's maximum, to every thread. `lowest`: what is less than everything.
template <class T>
__device__ T blockMax(T v, T lowest, T* shared) {
  v = warpMax(v);
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
  __syncthreads();
  if (lane == 0) shared[warp] = v;
  __syncthreads();
  return warpMax(lane < warps ? shared[lane] : lowest);
}

}  // namespace longcat::cuda
