// Eight numbers at a time: 16-byte accesses where memory is aligned, one by one where it is not. Both read and write the same numbers.
#pragma once

#include <cstdint>

#include "cuda/numbers.cuh"

namespace longcat::cuda {

constexpr int kOctet = 8;  // numbers a thread moves at once

__device__ __forceinline__ void loadOctet(const float* from, float (&v)[kOctet]) {
  const float4 a = reinterpret_cast<const float4*>(from)[0], b = reinterpret_cast<const float4*>(from)[1];
  v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w, v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
}

/// Two bfloat16 in one word, the low half first.
__device__ __forceinline__ void widenPair(uint32_t pair, float& low, float& high) {
  low = __uint_as_float(pair << 16);
  high = __uint_as_float(pair & 0xffff0000u);
}

__device__ __forceinline__ void widenOctet(const uint4& bits, float (&v)[kOctet]) {
  widenPair(bits.x, v[0], v[1]);
  widenPair(bits.y, v[2], v[3]);
  widenPair(bits.z, v[4], v[5]);
  widenPair(bits.w, v[6], v[7]);
}

__device__ __forceinline__ void loadOctet(const Bf16* from, float (&v)[kOctet]) { widenOctet(*reinterpret_cast<const uint4*>(from), v); }

__device__ __forceinline__ void storeOctet(float* to, const float (&v)[kOctet]) {
  reinterpret_cast<float4*>(to)[0] = make_float4(v[0], v[1], v[2], v[3]);
  reinterpret_cast<float4*>(to)[1] = make_float4(v[4], v[5], v[6], v[7]);
}

__device__ __forceinline__ void storeOctet(Bf16* to, const float (&v)[kOctet]) {
  uint4 bits;
  __nv_bfloat162* pairs = reinterpret_cast<__nv_bfloat162*>(&bits);
#pragma unroll
  for (int i = 0; i < 4; ++i) pairs[i] = __floats2bfloat162_rn(v[2 * i], v[2 * i + 1]);
  *reinterpret_cast<uint4*>(to) = bits;
}

/// The first n (at most 8) of them; zeros behind. kWhole: there are eight, and `from` is a multiple of 16 bytes.
template <bool kWhole, class T>
__device__ __forceinline__ void loadOctet(const T* from, int64_t n, float (&v)[kOctet]) {
  if constexpr (kWhole) {
    loadOctet(from, v);
  } else {
#pragma unroll
    for (int i = 0; i < kOctet; ++i) v[i] = i < n ? floatOf(from[i]) : 0.0f;
  }
}

template <bool kWhole, class T>
__device__ __forceinline__ void storeOctet(T* to, int64_t n, const float (&v)[kOctet]) {
  if constexpr (kWhole) {
    storeOctet(to, v);
  } else {
#pragma unroll
    for (int i = 0; i < kOctet; ++i) {
      if (i < n) to[i] = numberOf<T>(v[i]);
    }
  }
}

/// Every row begins at a multiple of 16 bytes (or there are none): with a width that is a multiple of eight, octets are whole.
template <class T>
inline bool rowsAligned(const T* data, int64_t stride) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0 && stride * static_cast<int64_t>(sizeof(T)) % 16 == 0;
}

/// Live rows: what the device says, within the capacity.
__device__ __forceinline__ int64_t liveRows(const int32_t* rows, int64_t capacity) {
  return clampCount(*rows, capacity);
}

}  // namespace longcat::cuda
