// The router's products on Hopper's tensor cores, as exact as float32: a float32 weight is the sum of three bfloat16 numbers (8 + 8 + 8 bits
// of its significand), activations are bfloat16 already, so that every product of a part is exact and only the sums round.
//
// Weights are wgmma's A: a tile of kOutputs outputs × kStep numbers of hidden. float32 numbers are split on their way from shared memory to
// registers; bfloat16 are read where they are.
#pragma once

#include "cuda/hopper/wgmma.cuh"
#include "cuda/numbers.cuh"

namespace longcat::cuda::router {

constexpr int kOutputs = 64;  // of a tile
constexpr int kStep = 64;     // numbers of hidden
constexpr int kChains = kStep / 16;

/// A tile in shared memory is kBoxes boxes of kOutputs rows of 128 bytes, swizzled by the copy engine. multiply() begins the products of a
/// step, sixteen numbers of hidden after the other; when it returns, the last ones may still be under way. It calls afterFirst() when all
/// products of the step before are over. outputOf(): which output of the tile a thread's sums 4j + 2 · half (+ 1) belong to.
template <class W>
class Parts;

template <>
class Parts<Bf16> {
 public:
  static constexpr int kBoxes = 1;
  static __device__ __forceinline__ int outputOf(int half) { return (threadIdx.x >> 5) % 4 * 16 + (threadIdx.x & 31) / 4 + 8 * half; }

  template <int kRows, class F>
  __device__ __forceinline__ void multiply(float (&sum)[kRows / 2], const unsigned char* weights, const unsigned char* rows, const F& afterFirst) {
    beginProducts();
#pragma unroll
    for (int c = 0; c < kChains; ++c) productBf16<kRows>(sum, furtherOn(rowsOfK(weights), 32 * c), furtherOn(rowsOfK(rows), 32 * c));
    endProducts();
    waitProducts<1>();
    afterFirst();
  }
};

template <>
class Parts<float> {
 public:
  static constexpr int kBoxes = 2, kCount = 3;
  /// Neighbouring outputs: four threads of a quad times eight quads then read 8 bytes each from all banks.
  static __device__ __forceinline__ int outputOf(int half) { return (threadIdx.x >> 5) % 4 * 16 + (threadIdx.x & 31) / 4 * 2 + half; }

  template <int kRows, class F>
  __device__ __forceinline__ void multiply(float (&sum)[kRows / 2], const unsigned char* weights, const unsigned char* rows, const F& afterFirst) {
#pragma unroll
    for (int c = 0; c < kChains; ++c) {
      uint32_t(&a)[kCount][4] = a_[c % 2];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const unsigned char* row = weights + (c / 2) * (kOutputs * 128) + outputOf(half) * 128;
        const int t = threadIdx.x & 3, place = (((c % 2 * 4 + t / 2) ^ (outputOf(half) & 7)) << 4) + t % 2 * 8;
        split(*reinterpret_cast<const uint2*>(row + place), *reinterpret_cast<const uint2*>(row + (place ^ 32)), half, a);
      }
      beginProducts();
#pragma unroll
      for (int part = 0; part < kCount; ++part) productBf16<kRows>(sum, a[part], furtherOn(rowsOfK(rows), 32 * c));
      endProducts();
      waitProducts<1>();  // those of the sixteen before: their registers are free
      if (c == 0) afterFirst();
    }
  }

 private:
  /// A thread's four of the sixteen numbers of an output, to its registers of each part: the upper halves, cut off, of what is left.
  static __device__ __forceinline__ void split(uint2 low, uint2 high, int half, uint32_t (&a)[kCount][4]) {
    uint32_t rest[4] = {low.x, low.y, high.x, high.y};
#pragma unroll
    for (int part = 0; part < kCount; ++part) {
      a[part][half] = __byte_perm(rest[0], rest[1], 0x7632);
      a[part][2 + half] = __byte_perm(rest[2], rest[3], 0x7632);
#pragma unroll
      for (uint32_t& r : rest) r = __float_as_uint(__uint_as_float(r) - __uint_as_float(r & 0xffff0000u));  // exact
    }
  }

  uint32_t a_[2][kCount][4];  // of these sixteen numbers and of those before
};

}  // namespace longcat::cuda::router
