// Eight numbers of any format at a time, as they are stored (vectors.cuh has them as float): in pieces of up to 16 bytes where the
// address allows it, one by one where it does not or the numbers end first.
#pragma once

#include <cstdint>

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

}  // namespace longcat::cuda
