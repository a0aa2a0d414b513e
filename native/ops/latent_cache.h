// The packed form of the latent cache (an option: docs/numerics.md, 1). A plain cache is [blocks, blockSize, kvRank + rope] activations; a packed
// one is uint8 [blocks, blockSize, rowBytes], of which a block has its parts one after the other:
//   codes     [blockSize, codeBytes]   a row's latent as e4m3, kvRank of them
//   ropeKeys  [blockSize, ropeBytes]   its rope key as bfloat16
//   scales    [blockSize, scaleBytes]  float32, one for each 128 numbers of the latent
// Each begins at a multiple of 16 bytes, with LongCat-Flash's sizes and whole eights of rows in a block at one of 128: 656 bytes a row, where bfloat16 takes 1152.
//
// A scale is a power of two, so that code · scale is exact in bfloat16: all operations on all devices read the same numbers.
#pragma once

#include <cstdint>

#include "runtime/anywhere.h"
#include "runtime/dtype.h"

namespace longcat {

/// Where a row's parts are. Byte: uint8_t, or what may only be read.
template <class Byte>
struct PackedRow {
  Byte *codes, *ropeKey, *scales;
};

struct PackedLatents {
  int64_t rank, rope, blockSize;

  LONGCAT_ANYWHERE constexpr int64_t codeBytes() const { return wholeVectors(rank); }
  LONGCAT_ANYWHERE constexpr int64_t ropeBytes() const { return wholeVectors(2 * rope); }
  LONGCAT_ANYWHERE constexpr int64_t scaleBytes() const { return wholeVectors(4 * ((rank + kFp8Block - 1) / kFp8Block)); }
  LONGCAT_ANYWHERE constexpr int64_t rowBytes() const { return codeBytes() + ropeBytes() + scaleBytes(); }

  /// Row `row` = block · blockSize + place in the block.
  template <class Byte>
  LONGCAT_ANYWHERE PackedRow<Byte> at(Byte* cache, int64_t row) const {
    return at(cache, row / blockSize, row % blockSize);
  }
  template <class Byte>
  LONGCAT_ANYWHERE PackedRow<Byte> at(Byte* cache, int64_t block, int64_t place) const {
    Byte* const codes = cache + block * blockSize * rowBytes();
    Byte* const ropeKeys = codes + blockSize * codeBytes();
    return {codes + place * codeBytes(), ropeKeys + place * ropeBytes(), ropeKeys + blockSize * ropeBytes() + place * scaleBytes()};
  }

 private:
  LONGCAT_ANYWHERE static constexpr int64_t wholeVectors(int64_t bytes) { return (bytes + 15) / 16 * 16; }
};

/// The scale of numbers up to this size: the least power of two by which they are at most 448, e4m3's largest.
LONGCAT_ANYWHERE inline float latentScale(float largest) {
  const float exact = (largest > 1e-12f ? largest : 1e-12f) / 448.0f;
  return __builtin_bit_cast(float, (__builtin_bit_cast(uint32_t, exact) + 0x7fffffu) & 0xff800000u);
}

/// [latent | rope key], rank and rope numbers, to a row: the CPU's, and what tests compare with.
void packRow(const float* from, int64_t rank, int64_t rope, const PackedRow<uint8_t>& to);

}  // namespace longcat
