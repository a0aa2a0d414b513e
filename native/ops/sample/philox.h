// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3"): random bits as a function of a counter and a key.
// ts/sampling/philox.ts is the same function in TypeScript.
#pragma once

#include <cstdint>

#include "runtime/anywhere.h"

namespace longcat {

struct Philox4x32 {
  uint32_t word[4];
};

LONGCAT_ANYWHERE inline Philox4x32 philox4x32(Philox4x32 counter, uint32_t key0, uint32_t key1) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53u} * counter.word[0];
    const uint64_t b = uint64_t{0xCD9E8D57u} * counter.word[2];
    counter = {{static_cast<uint32_t>(b >> 32) ^ counter.word[1] ^ key0, static_cast<uint32_t>(b),
                static_cast<uint32_t>(a >> 32) ^ counter.word[3] ^ key1, static_cast<uint32_t>(a)}};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter;
}

/// A number in [0, 1) with 53 random bits: the draw of `seed` (a whole number below 2^53) at `position`.
LONGCAT_ANYWHERE inline double uniform(double seed, uint32_t position) {
  const uint64_t bits = static_cast<uint64_t>(seed);
  const Philox4x32 r = philox4x32({{position, 0, 0, 0}}, static_cast<uint32_t>(bits), static_cast<uint32_t>(bits >> 32));
  const uint64_t mantissa = (uint64_t{r.word[0] >> 5} << 26) + (r.word[1] >> 6);
  return static_cast<double>(mantissa) * 0x1p-53;
}

}  // namespace longcat
