// What a card can do at most, measured on it: the ceilings that benchmarks are compared with. And random numbers for them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/context.h"
#include "runtime/dtype.h"

namespace longcat::cuda {

struct Ceilings {
  double bytesPerSecond = 0;  // of memory far larger than the cache: read, or read and written by a copy, whichever is more
  double mmaFlops = 0;        // tensor cores, bfloat16 with float32 sums: mma.sync from registers, on 9.0 also wgmma from shared memory
  double fmaFlops = 0;        // float32 multiply-adds from registers
};

/// Takes some milliseconds and some 1 GB of memory for that long. Throws Error("CUDA_ERROR").
Ceilings measureCeilings(const CudaContext& context);

/// Launches a kernel that fills `count` numbers: uniform within [low, high] for float32 and bfloat16, random finite codes of ordinary size
/// for e4m3.
void fillRandom(const CudaContext& context, void* data, DType dtype, int64_t count, float low, float high, uint64_t seed);

}  // namespace longcat::cuda
