// The rotation of a pair, wherever a kernel has it.
#pragma once

#include <cstdint>

namespace longcat::cuda {

/// Of the pair j of a row.
struct Angle {
  float cosine = 1, sine = 0;
  Angle() = default;
  __device__ __forceinline__ Angle(const float* cosSin, int64_t j, int64_t half) : cosine(cosSin[j]), sine(cosSin[half + j]) {}
};
struct Rotation {
  float a, b;
};
/// The pair j of a row, rotated: what goes to places j and j + half.
__device__ __forceinline__ Rotation rotate(float a, float b, const Angle& by) { return {a * by.cosine - b * by.sine, b * by.cosine + a * by.sine}; }

}  // namespace longcat::cuda
