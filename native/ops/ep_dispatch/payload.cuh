// ep_dispatch on a GPU: rows on their way into a window, in pieces that a thread holds: as they are, or as e4m3 codes with a scale for each 128.
#pragma once

#include "cuda/fp8_codes.cuh"
#include "cuda/vectors.cuh"
#include "ops/ep_dispatch/params.h"

namespace longcat::cuda {

/// A row as it is, in words of type Word: as large as its bytes and its address allow.
template <class Word>
struct PlainRows {
  static constexpr int kHeld = 8;  // pieces that a thread has under way at once
  using Piece = Word;

  static __device__ __forceinline__ int64_t piecesOf(const EpDispatchParams& p) { return p.width * rowNumberBytes(p) / static_cast<int64_t>(sizeof(Word)); }
  static __device__ __forceinline__ Piece load(const EpDispatchParams& p, int64_t row, int64_t piece, bool there) {
    return there ? static_cast<const Word*>(p.h.data)[row * piecesOf(p) + piece] : Piece{};
  }
  static __device__ __forceinline__ void store(const EpDispatchParams& p, std::byte* window, int64_t place, int64_t piece, const Piece& held) {
    reinterpret_cast<Word*>(window + p.layout.rows)[place * piecesOf(p) + piece] = held;
  }

 private:
  static __device__ __forceinline__ int64_t rowNumberBytes(const EpDispatchParams& p) { return p.activation == DType::bf16 ? 2 : 4; }
};

/// Scales of a row.
__device__ __forceinline__ int64_t scalesOf(int64_t width) { return (width + kFp8Block - 1) / kFp8Block; }

/// Codes of 16 numbers; eight threads that follow each other have a block of 128 and its scale (docs/numerics.md, 7). kWhole: rows are whole pieces,
/// and begin at multiples of 16 bytes.
template <class A, bool kWhole>
struct PackedRows {
  static constexpr int kHeld = 2;
  static constexpr int kNumbers = 16, kThreadsOfBlock = static_cast<int>(kFp8Block) / kNumbers;
  struct Piece {
    uint32_t codes[kNumbers / 4];
    float scale;
  };

  static __device__ __forceinline__ int64_t piecesOf(const EpDispatchParams& p) { return scalesOf(p.width) * kThreadsOfBlock; }

  /// All threads of a warp call.
  static __device__ __forceinline__ Piece load(const EpDispatchParams& p, int64_t row, int64_t piece, bool there) {
    const int64_t k = piece * kNumbers;
    const A* from = static_cast<const A*>(p.h.data) + row * p.width + k;
    float v[2][kOctet] = {};
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t left = there ? p.width - k - half * kOctet : 0;
      if (left > 0) loadOctet<kWhole>(from + half * kOctet, left, v[half]);
    }
    float most = 1e-12f;
#pragma unroll
    for (int i = 0; i < kNumbers; ++i) most = fmaxf(most, fabsf(v[i / kOctet][i % kOctet]));
#pragma unroll
    for (int d = 1; d < kThreadsOfBlock; d <<= 1) most = fmaxf(most, __shfl_xor_sync(kAllLanes, most, d));
    Piece held;
    held.scale = __fdiv_rn(most, 448.0f);
    const ExactQuotient scaled(held.scale);
#pragma unroll
    for (int i = 0; i < kNumbers; i += 4) {
      const float* four = &v[i / kOctet][i % kOctet];
      held.codes[i / 4] = fp8PairOf(scaled(four[0]), scaled(four[1])) | fp8PairOf(scaled(four[2]), scaled(four[3])) << 16;
    }
    return held;
  }

  static __device__ __forceinline__ void store(const EpDispatchParams& p, std::byte* window, int64_t place, int64_t piece, const Piece& held) {
    const int64_t k = piece * kNumbers;
    auto* to = reinterpret_cast<uint8_t*>(window + p.layout.rows) + place * p.width + k;
    if constexpr (kWhole) {
      if (k < p.width) *reinterpret_cast<uint4*>(to) = {held.codes[0], held.codes[1], held.codes[2], held.codes[3]};
    } else {
#pragma unroll
      for (int i = 0; i < kNumbers; ++i) {
        if (k + i < p.width) to[i] = static_cast<uint8_t>(held.codes[i / 4] >> (i % 4 * 8));
      }
    }
    if (piece % kThreadsOfBlock == 0) reinterpret_cast<float*>(window + p.layout.scales)[place * scalesOf(p.width) + piece / kThreadsOfBlock] = held.scale;
  }
};

}  // namespace longcat::cuda
