// The weights' narrow formats, number by number: bfloat16, and float8 e4m3 (finite: no infinity, one NaN).
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace longcat {

inline float floatOfBf16(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

/// Rounded to nearest, ties to even; a NaN stays one.
inline uint16_t bf16OfFloat(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if (std::isnan(value)) return static_cast<uint16_t>((bits >> 16) | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

inline float floatOfE4m3(uint8_t bits) {
  const int exponent = (bits >> 3) & 15, mantissa = bits & 7;
  if (exponent == 15 && mantissa == 7) return NAN;
  const float size = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9) : std::ldexp(1.0f + static_cast<float>(mantissa) / 8, exponent - 7);
  return (bits & 0x80) != 0 ? -size : size;
}

}  // namespace longcat
