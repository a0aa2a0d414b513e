// Packing a row of the latent cache in plain C++; see latent_cache.h.
#include "ops/latent_cache.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "io/fp8.h"
#include "runtime/float_formats.h"

namespace longcat {

void packRow(const float* from, int64_t rank, int64_t rope, const PackedRow<uint8_t>& to) {
  for (int64_t first = 0; first < rank; first += kFp8Block) {
    const int64_t end = std::min(first + kFp8Block, rank);
    float largest = 0;
    for (int64_t k = first; k < end; ++k) largest = std::max(largest, std::fabs(from[k]));
    const float scale = latentScale(largest);
    std::memcpy(to.scales + first / kFp8Block * sizeof scale, &scale, sizeof scale);
    for (int64_t k = first; k < end; ++k) to.codes[k] = e4m3FromFloat(from[k] / scale);
  }
  for (int64_t k = 0; k < rope; ++k) {
    const uint16_t bits = bf16OfFloat(from[rank + k]);
    std::memcpy(to.ropeKey + k * sizeof bits, &bits, sizeof bits);
  }
}

}  // namespace longcat
