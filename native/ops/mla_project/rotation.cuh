// The rotation of a pair, wherever a kernel has it.
#pragma once

namespace longcat::cuda {

struct Rotation {
  float a, b;
};
/// The pair j of a row, rotated: what goes to places j and j + half.
__device__ __forceinline__ Rotation rotate(float a, float b, const float* cosSin, int64_t j, int64_t half) {
  const float c = cosSin[j], s = cosSin[half + j];
  return {a * c - b * s, b * c + a * s};
}

}  // namespace longcat::cuda
