// Sums that say themselves whether they have come (cuda/arrivals.cuh): a sender writes each number's bits inverted, and the
// receiver, which looks at the numbers themselves, puts zeros back once it has them. Zero is nobody's: it would be the number whose bits are all ones,
// a NaN that no arithmetic and no rounding leaves behind (theirs has a sign of zero).
//
// The zeros are there in time: a rank sends sums only when it has the receiver's rows of the same exchange, and those were sent by a kernel behind the
// one that put the zeros back. A new window is of zeros.
#pragma once

#include <type_traits>

#include "cuda/arrivals.cuh"
#include "cuda/vectors.cuh"

namespace longcat::cuda {

// ---- Octets

/// An octet as it lies in memory: half the registers of its numbers, where these are bfloat16. kWhole: as in vectors.cuh.
template <class A>
struct StoredOctet {
  using Bits = std::conditional_t<sizeof(A) == 2, uint16_t, uint32_t>;  // of a number
  static constexpr int kPieces = sizeof(A) * kOctet / sizeof(uint4);
  uint4 pieces[kPieces];

  __device__ __forceinline__ void round(const float (&v)[kOctet]) { storeOctet(reinterpret_cast<A*>(pieces), v); }
  __device__ __forceinline__ void widen(float (&v)[kOctet]) const { loadOctet(reinterpret_cast<const A*>(pieces), v); }

  template <bool kWhole>
  __device__ __forceinline__ void load(const A* from, int64_t n) {
    if constexpr (kWhole) {
#pragma unroll
      for (int i = 0; i < kPieces; ++i) pieces[i] = reinterpret_cast<const uint4*>(from)[i];
    } else {
      float v[kOctet];
      loadOctet<false>(from, n, v);
      round(v);
    }
  }

  /// To a place of which another processor takes it.
  template <bool kWhole>
  __device__ __forceinline__ void send(A* to, int64_t n) const {
    if constexpr (kWhole) {
#pragma unroll
      for (int i = 0; i < kPieces; ++i) storeArrival(reinterpret_cast<uint4*>(to) + i, inverted(pieces[i]));
    } else {
#pragma unroll
      for (int i = 0; i < kOctet; ++i) {
        if (i < n) storeArrival(reinterpret_cast<Bits*>(to) + i, static_cast<Bits>(~bits()[i]));
      }
    }
  }

  /// Takes what has come to such a place. False: not all of it has.
  template <bool kWhole>
  __device__ __forceinline__ bool take(const A* from, int64_t n) {
    bool there = true;
    if constexpr (kWhole) {
#pragma unroll
      for (int i = 0; i < kPieces; ++i) {
        const uint4 v = loadArrival(reinterpret_cast<const uint4*>(from) + i);
        there = there && hasNoZero(v.x) && hasNoZero(v.y) && hasNoZero(v.z) && hasNoZero(v.w);
        pieces[i] = inverted(v);
      }
    } else {
#pragma unroll
      for (int i = 0; i < kOctet; ++i) {
        const Bits v = i < n ? loadArrival(reinterpret_cast<const Bits*>(from) + i) : static_cast<Bits>(~Bits{0});
        there = there && v != 0;
        bits()[i] = static_cast<Bits>(~v);
      }
    }
    return there;
  }

  /// The place is ready for the next exchange.
  template <bool kWhole>
  static __device__ __forceinline__ void clear(A* place, int64_t n) {
    constexpr float kZeros[kOctet] = {};
    storeOctet<kWhole>(place, n, kZeros);
  }

 private:
  static __device__ __forceinline__ uint4 inverted(uint4 v) { return {~v.x, ~v.y, ~v.z, ~v.w}; }
  /// None of the word's numbers is zero: also where its sender wrote them one by one.
  static __device__ __forceinline__ bool hasNoZero(uint32_t word) {
    if constexpr (sizeof(A) == 2) return (word & 0xffffu) != 0 && word >> 16 != 0;
    return word != 0;
  }
  __device__ __forceinline__ Bits* bits() { return reinterpret_cast<Bits*>(pieces); }
  __device__ __forceinline__ const Bits* bits() const { return reinterpret_cast<const Bits*>(pieces); }
};

}  // namespace longcat::cuda
