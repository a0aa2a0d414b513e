#include "comm/packed_rows.h"

#include <algorithm>
#include <cmath>

#include "io/fp8.h"

namespace longcat {

void packRow(const float* row, int64_t width, uint8_t* codes, float* scales) {
  for (int64_t first = 0; first < width; first += kFp8Block) {
    const int64_t end = std::min(width, first + kFp8Block);
    float largest = 1e-12f;
    for (int64_t k = first; k < end; ++k) largest = std::max(largest, std::abs(row[k]));
    const float scale = scales[first / kFp8Block] = largest / kFp8Max;
    for (int64_t k = first; k < end; ++k) codes[k] = e4m3FromFloat(row[k] / scale);
  }
}

}  // namespace longcat
