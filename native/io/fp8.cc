// Quantising to block FP8 in plain C++; see fp8.h.
#include "io/fp8.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "runtime/error.h"
#include "runtime/float_formats.h"

namespace longcat {

namespace {

/// Element i of unaligned f32 or bf16 numbers.
float load(const void* w, DType dtype, int64_t i) {
  const auto* bytes = static_cast<const unsigned char*>(w);
  if (dtype == DType::bf16) {
    uint16_t half;
    std::memcpy(&half, bytes + i * 2, 2);
    return floatOfBf16(half);
  }
  float value;
  std::memcpy(&value, bytes + i * 4, 4);
  return value;
}

}  // namespace

uint8_t e4m3FromFloat(float value) {
  if (std::isnan(value)) return 0x7F;
  const uint8_t sign = std::signbit(value) ? 0x80 : 0;
  const float magnitude = std::min(std::fabs(value), kFp8Max);
  if (magnitude < 0x1p-6f) {  // below the smallest normal: multiples of 2^-9; 8 of them are code 8, the smallest normal
    return static_cast<uint8_t>(sign | static_cast<uint8_t>(std::nearbyintf(magnitude * 0x1p9f)));
  }
  uint32_t bits = std::bit_cast<uint32_t>(magnitude);
  bits += 0x7FFFFu + (bits >> 20 & 1);  // 20 of the 23 fraction bits go: round to nearest, ties to even
  return static_cast<uint8_t>(sign | ((bits >> 20) - (127 - 7) * 8));
}

Fp8Matrix quantizeToFp8(const void* w, DType dtype, int64_t rows, int64_t columns) {
  require(dtype == DType::f32 || dtype == DType::bf16, "quantizeToFp8 takes float32 or bfloat16");
  Fp8Matrix out;
  out.codes.resize(static_cast<size_t>(rows * columns));
  out.scales.reserve(static_cast<size_t>(fp8Blocks(rows) * fp8Blocks(columns)));
  for (int64_t r0 = 0; r0 < rows; r0 += kFp8Block) {
    for (int64_t c0 = 0; c0 < columns; c0 += kFp8Block) {
      const int64_t r1 = std::min(r0 + kFp8Block, rows), c1 = std::min(c0 + kFp8Block, columns);
      float largest = 1e-12f;
      for (int64_t r = r0; r < r1; ++r)
        for (int64_t c = c0; c < c1; ++c) {
          const float magnitude = std::fabs(load(w, dtype, r * columns + c));
          if (magnitude > largest) largest = magnitude;
        }
      if (std::isinf(largest))
        throw Error("CHECKPOINT_INVALID", "holds an infinite weight in rows " + std::to_string(r0) + " to " + std::to_string(r1 - 1));
      const float scale = largest / kFp8Max;
      out.scales.push_back(scale);
      for (int64_t r = r0; r < r1; ++r)
        for (int64_t c = c0; c < c1; ++c)
          out.codes[static_cast<size_t>(r * columns + c)] = e4m3FromFloat(load(w, dtype, r * columns + c) / scale);
    }
  }
  return out;
}

}  // namespace longcat
