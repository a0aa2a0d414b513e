// Block FP8 (docs/numerics.md, 7): blocks of kFp8Block × kFp8Block float8 e4m3 (finite: no infinity, one NaN) with an fp32 scale each.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/dtype.h"

namespace longcat {

constexpr float kFp8Max = 448.0f;

/// The nearest e4m3 code, ties to even; magnitudes beyond 448 give 448, NaN gives 0x7F.
uint8_t e4m3FromFloat(float value);

struct Fp8Matrix {
  std::vector<uint8_t> codes;  // [rows, columns]
  std::vector<float> scales;   // [fp8Blocks(rows), fp8Blocks(columns)]
};

/// scale = max(max|w|, 1e-12) / 448 of each block; code = e4m3(w / scale), both IEEE divisions.
/// w: [rows, columns] dense, f32 or bf16. An infinite weight throws Error("CHECKPOINT_INVALID").
Fp8Matrix quantizeToFp8(const void* w, DType dtype, int64_t rows, int64_t columns);

}  // namespace longcat
