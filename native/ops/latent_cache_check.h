// The check of a latent cache, plain or packed, that all operations over it share.
#pragma once

#include "ops/check.h"
#include "ops/latent_cache.h"

namespace longcat {

/// Argument `i` as rows of latents and rope keys; `packed`: whether it is uint8.
inline Activations latentCache(const ArgCheck& check, int i, int64_t rank, int64_t rope, bool* packed) {
  *packed = check.isDType(i, DType::u8);
  if (!*packed) return check.activations(i, {kAnySize, kAnySize, rank + rope});
  const Activations cache{check.dense<void>(i, DType::u8, {kAnySize, kAnySize, PackedLatents{rank, rope, 1}.rowBytes()})};
  check.requireArg(i, reinterpret_cast<uintptr_t>(cache.data) % 16 == 0, "must begin at a multiple of 16 bytes");
  return cache;
}

}  // namespace longcat
