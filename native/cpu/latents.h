// A packed latent cache's rows as float32 (ops/latent_cache.h).
#pragma once

#include "cpu/math.h"
#include "ops/latent_cache.h"

namespace longcat::LONGCAT_ISA {

/// [latent | rope key] of one row.
LONGCAT_INLINE void unpackRow(const PackedRow<const uint8_t>& row, int64_t rank, int64_t rope, float* to) {
  const auto* codes = reinterpret_cast<const F8*>(row.codes);
  const auto* ropeKey = reinterpret_cast<const Bf16*>(row.ropeKey);
  const auto* scales = reinterpret_cast<const float*>(row.scales);
  for (int64_t first = 0; first < rank; first += kFp8Block) {
    const Vec scale = set1(scales[first / kFp8Block]);
    forLanes(smaller(kFp8Block, rank - first), [&](int64_t k, int n) { storeN(to + first + k, mul(loadN(codes + first + k, n), scale), n); });
  }
  forLanes(rope, [&](int64_t k, int n) { storeN(to + rank + k, loadN(ropeKey + k, n), n); });
}

}  // namespace longcat::LONGCAT_ISA
