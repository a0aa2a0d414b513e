// Eight numbers of a row at a time: in 16-byte pieces where the address allows it, one by one where it does not or the row ends first.
// Which of the two it was changes no result.
#pragma once

#include <cstdint>

#include "cuda/numbers.cuh"

namespace longcat::cuda {

constexpr int kChunk = 8;

template <class T>
__device__ __forceinline__ bool isAligned(const void* p) {
  constexpr unsigned kBytes = sizeof(T) * kChunk < 16 ? sizeof(T) * kChunk : 16;
  return (reinterpret_cast<uintptr_t>(p) & (kBytes - 1)) == 0;
}

/// A chunk as it is stored, to be loaded and stored at once.
template <class T>
struct alignas(sizeof(T) * kChunk < 16 ? sizeof(T) * kChunk : 16) Chunk {
  T value[kChunk];
};

/// The n ≤ kChunk numbers from p on, as they are stored; what is beyond them is zero.
template <class T>
__device__ __forceinline__ Chunk<T> loadStored(const T* p, int n) {
  if (n == kChunk && isAligned<T>(p)) return *reinterpret_cast<const Chunk<T>*>(p);
  Chunk<T> chunk;
#pragma unroll
  for (int i = 0; i < kChunk; ++i) chunk.value[i] = i < n ? p[i] : T{};
  return chunk;
}

/// Writes the first n ≤ kChunk numbers.
template <class T>
__device__ __forceinline__ void storeStored(T* p, int n, const Chunk<T>& chunk) {
  if (n == kChunk && isAligned<T>(p)) {
    *reinterpret_cast<Chunk<T>*>(p) = chunk;
    return;
  }
#pragma unroll
  for (int i = 0; i < kChunk; ++i) {
    if (i < n) p[i] = chunk.value[i];
  }
}

/// The n ≤ kChunk numbers from p on, as float; zeros beyond them.
template <class T>
__device__ __forceinline__ void loadChunk(const T* p, int n, float (&v)[kChunk]) {
  const Chunk<T> chunk = loadStored(p, n);
#pragma unroll
  for (int i = 0; i < kChunk; ++i) v[i] = floatOf(chunk.value[i]);
}

/// Writes the first n ≤ kChunk numbers, rounded to T.
template <class T>
__device__ __forceinline__ void storeChunk(T* p, int n, const float (&v)[kChunk]) {
  Chunk<T> chunk;
#pragma unroll
  for (int i = 0; i < kChunk; ++i) chunk.value[i] = numberOf<T>(v[i]);
  storeStored(p, n, chunk);
}

}  // namespace longcat::cuda
