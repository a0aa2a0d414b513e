// mla_decode of any sizes and dtypes in float32 arithmetic: float32 activations, and what the tensor-core kernels do not take.
#pragma once

#include "cuda/dependent.cuh"
#include "cuda/latents.cuh"
#include "ops/mla_decode/live.cuh"

namespace longcat::cuda {
namespace {

constexpr int kGenericThreads = 256;
constexpr int kGenericWarps = kGenericThreads / 32;

/// kv_b's number at (row, column), FP8 with its scale.
__device__ __forceinline__ float weightAt(const WeightView& w, int64_t row, int64_t column) {
  const float v = loadNumber(w.data, w.dtype, row * w.columns + column);
  return w.dtype == DType::f8e4m3 ? v * weightScale(w, row, column) : v;
}

/// q_lat = q_nope W_k: a thread for each number, along nope.
template <class T>
__global__ void __launch_bounds__(kGenericThreads) absorbGeneric(const MlaDecodeParams p) {
  awaitPrevious();
  const Live live = liveOf(p);
  const int64_t items = (live.rows - live.begin) * p.heads * p.kvRank, threads = static_cast<int64_t>(gridDim.x) * kGenericThreads;
  for (int64_t item = static_cast<int64_t>(blockIdx.x) * kGenericThreads + threadIdx.x; item < items; item += threads) {
    const int64_t pair = live.begin * p.heads + item / p.kvRank, column = item % p.kvRank, weightRow = pair % p.heads * (p.nope + p.vDim);
    const T* q = numbersIn<T>(p.q) + pair * (p.nope + p.rope);
    float sum = 0;
    for (int64_t i = 0; i < p.nope; ++i) sum = fmaf(floatOf(q[i]), weightAt(p.kvB, weightRow + i, column), sum);
    numbersIn<T>(p.qLatent)[pair * p.kvRank + column] = numberOf<T>(sum);
  }
}

/// A row of the cache, number by number.
template <class T>
struct PlainKey {
  const T *latents, *ropeKey;
  __device__ __forceinline__ PlainKey(const MlaDecodeParams& p, int64_t row) : latents(numbersIn<T>(p.cache) + row * (p.kvRank + p.rope)), ropeKey(latents + p.kvRank) {}
  __device__ __forceinline__ float latent(int64_t k) const { return floatOf(latents[k]); }
  __device__ __forceinline__ float rope(int64_t k) const { return floatOf(ropeKey[k]); }
};
struct PackedKey {
  PackedRow<const uint8_t> row;
  __device__ __forceinline__ PackedKey(const MlaDecodeParams& p, int64_t r) : row(p.packedRow(r)) {}
  __device__ __forceinline__ float latent(int64_t k) const { return latentAt(row, k); }
  __device__ __forceinline__ float rope(int64_t k) const { return ropeKeyAt(row, k); }
};

/// [q_lat | q_rope] · a cache row: lanes along the row, then the warp's sum.
template <class T, class Key>
__device__ __forceinline__ float scoreGeneric(const MlaDecodeParams& p, const T* latent, const T* rope, const Key& key) {
  const int lane = threadIdx.x & 31;
  float sum = 0;
  for (int64_t k = lane; k < p.kvRank; k += 32) sum = fmaf(floatOf(latent[k]), key.latent(k), sum);
  for (int64_t k = lane; k < p.rope; k += 32) sum = fmaf(floatOf(rope[k]), key.rope(k), sum);
  return warpSum(sum);
}

/// Partial results: a block for each split and head.
template <class T, class Key>
__global__ void __launch_bounds__(kGenericThreads) attendGeneric(const MlaDecodeParams p) {
  awaitPrevious();
  static_assert(kGenericThreads == kSplitKeys);  // thread j has key j
  __shared__ int32_t keyRow[kSplitKeys];
  __shared__ float scores[kSplitKeys];
  __shared__ float reduction[32];
  const int64_t splits = liveOf(p).splits;
  const int thread = threadIdx.x;
  for (int64_t item = blockIdx.x; item < splits * p.heads; item += gridDim.x) {
    const int64_t index = item / p.heads, head = item - index * p.heads;
    const Split split = splitAt(p, index);
    const int64_t pair = split.row * p.heads + head;
    const T *latent = numbersIn<T>(p.qLatent) + pair * p.kvRank, *rope = numbersIn<T>(p.q) + pair * (p.nope + p.rope) + p.nope;
    __syncthreads();  // the item before has been read
    if (thread < split.keys) keyRow[thread] = cacheRow(p, split, thread);
    __syncthreads();
    for (int j = thread / 32; j < split.keys; j += kGenericWarps) {
      const float score = scoreGeneric(p, latent, rope, Key(p, keyRow[j])) * p.softmaxScale;
      if (thread % 32 == 0) scores[j] = score;
    }
    __syncthreads();
    const bool mine = thread < split.keys;
    const float score = mine ? scores[thread] : -INFINITY, maximum = blockMax(score, -INFINITY, reduction);
    const float weight = mine ? expf(score - maximum) : 0.0f, total = blockSum(weight, reduction);
    if (mine) scores[thread] = weight;
    __syncthreads();
    float* partial = p.partial + item * (p.kvRank + 2);
    for (int64_t k = thread; k < p.kvRank; k += kGenericThreads) {
      float sum = 0;
      for (int j = 0; j < split.keys; ++j) sum = fmaf(scores[j], Key(p, keyRow[j]).latent(k), sum);
      partial[k] = sum;
    }
    if (thread == 0) partial[p.kvRank] = maximum, partial[p.kvRank + 1] = total;
  }
}

/// out = W_v latent: a warp for each number, lanes along the latent. The merged latents lie in qLatent.
template <class T>
__global__ void __launch_bounds__(kGenericThreads) valuesGeneric(const MlaDecodeParams p) {
  awaitPrevious();
  const Live live = liveOf(p);
  const int lane = threadIdx.x & 31;
  const int64_t items = (live.rows - live.begin) * p.heads * p.vDim, warps = static_cast<int64_t>(gridDim.x) * kGenericWarps;
  for (int64_t item = static_cast<int64_t>(blockIdx.x) * kGenericWarps + threadIdx.x / 32; item < items; item += warps) {
    const int64_t pair = live.begin * p.heads + item / p.vDim, value = item % p.vDim;
    const int64_t weightRow = pair % p.heads * (p.nope + p.vDim) + p.nope + value;
    const T* latent = numbersIn<T>(p.qLatent) + pair * p.kvRank;
    float sum = 0;
    for (int64_t k = lane; k < p.kvRank; k += 32) sum = fmaf(floatOf(latent[k]), weightAt(p.kvB, weightRow, k), sum);
    sum = warpSum(sum);
    if (lane == 0) numbersIn<T>(p.out)[pair * p.vDim + value] = numberOf<T>(sum);
  }
}

}  // namespace
}  // namespace longcat::cuda
