// ep_dispatch on a GPU: rows on their way into a window, in pieces that a thread holds: as they are, or as e4m3 codes with a scale for each 128.
// Piece: as it is read, Packed: as it is stored; kPacks: they differ.
#pragma once

#include "cuda/fp8_codes.cuh"
#include "cuda/vectors.cuh"
#include "ops/ep_dispatch/params.h"

namespace longcat::cuda {

/// A row as it is, in words of type Word: as large as its bytes and its address allow.
template <class Word>
struct PlainRows {
  static constexpr int kHeld = 8;  // pieces that a thread has under way at once
  static constexpr bool kPacks = false;
  using Piece = Word;
  using Packed = Word;

  static __device__ __forceinline__ int64_t piecesOf(const EpDispatchParams& p) { return p.width * rowNumberBytes(p) / static_cast<int64_t>(sizeof(Word)); }
  static __device__ __forceinline__ Piece load(const EpDispatchParams& p, uint32_t n, uint32_t, uint32_t) { return static_cast<const Word*>(p.h.data)[n]; }
  static __device__ __forceinline__ void store(const EpDispatchParams& p, std::byte* window, int64_t place, int64_t piece, const Packed& held) {
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
  static constexpr int kHeld = sizeof(A) == 2 ? 2 : 1;  // the next ones are under way while these are packed and stored
  static constexpr int kNumbers = 16, kThreadsOfBlock = static_cast<int>(kFp8Block) / kNumbers;
  static constexpr bool kPacks = true;
  /// As read; zeros behind a row's end.
  struct alignas(16) Piece {
    A v[kNumbers];
  };
  struct Packed {
    uint32_t codes[kNumbers / 4];
    float scale;
  };

  static __device__ __forceinline__ int64_t piecesOf(const EpDispatchParams& p) { return scalesOf(p.width) * kThreadsOfBlock; }

  static __device__ __forceinline__ Piece load(const EpDispatchParams& p, uint32_t, uint32_t row, uint32_t piece) {
    const int64_t k = static_cast<int64_t>(piece) * kNumbers, left = p.width - k;
    const A* from = static_cast<const A*>(p.h.data) + row * p.width + k;
    Piece held{};
    if constexpr (kWhole) {
      if (left > 0) held = *reinterpret_cast<const Piece*>(from);
    } else {
#pragma unroll
      for (int i = 0; i < kNumbers; ++i) {
        if (i < left) held.v[i] = from[i];
      }
    }
    return held;
  }

  /// All threads of a warp call.
  static __device__ __forceinline__ Packed pack(const Piece& held) {
    float v[kNumbers];
#pragma unroll
    for (int i = 0; i < kNumbers; ++i) v[i] = floatOf(held.v[i]);
    float most = 1e-12f;
#pragma unroll
    for (int i = 0; i < kNumbers; ++i) most = fmaxf(most, fabsf(v[i]));
#pragma unroll
    for (int d = 1; d < kThreadsOfBlock; d <<= 1) most = fmaxf(most, __shfl_xor_sync(kAllLanes, most, d));
    Packed packed;
    packed.scale = __fdiv_rn(most, 448.0f);
    const ExactQuotient scaled(packed.scale);
#pragma unroll
    for (int i = 0; i < kNumbers; i += 4) {
      packed.codes[i / 4] = fp8PairOf(scaled(v[i]), scaled(v[i + 1])) | fp8PairOf(scaled(v[i + 2]), scaled(v[i + 3])) << 16;
    }
    return packed;
  }

  static __device__ __forceinline__ void store(const EpDispatchParams& p, std::byte* window, int64_t place, int64_t piece, const Packed& packed) {
    const int64_t k = piece * kNumbers;
    auto* to = reinterpret_cast<uint8_t*>(window + p.layout.rows) + place * p.width + k;
    if constexpr (kWhole) {
      if (k < p.width) *reinterpret_cast<uint4*>(to) = {packed.codes[0], packed.codes[1], packed.codes[2], packed.codes[3]};
    } else {
#pragma unroll
      for (int i = 0; i < kNumbers; ++i) {
        if (k + i < p.width) to[i] = static_cast<uint8_t>(packed.codes[i / 4] >> (i % 4 * 8));
      }
    }
    if (piece % kThreadsOfBlock == 0) reinterpret_cast<float*>(window + p.layout.scales)[place * scalesOf(p.width) + piece / kThreadsOfBlock] = packed.scale;
  }
};

}  // namespace longcat::cuda
