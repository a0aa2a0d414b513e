// Rows that travel as FP8: e4m3 codes, and a float32 scale for each kFp8Block of them, by the rule of docs/numerics.md, 7.
#pragma once

#include <cstdint>

namespace longcat {

/// codes: [width]; scales: [fp8Blocks(width)].
void packRow(const float* row, int64_t width, uint8_t* codes, float* scales);

}  // namespace longcat
