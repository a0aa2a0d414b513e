// What a card can do at most, measured on it: the ceilings that benchmarks are compared with. And what benchmarks need there: a memory
// that is read from end to end, so that the cache holds nothing of theirs, and random numbers.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/context.h"
#include "runtime/dtype.h"

namespace longcat::cuda {

struct Ceilings {
  double copyBytesPerSecond = 0;  // read and written, of a copy far larger than the cache
  double mmaFlops = 0;            // bfloat16 mma.sync m16n8k16 from registers, float32 accumulators
  double fmaFlops = 0;            // float32 multiply-adds from registers
};

/// Takes some milliseconds and some 1 GB of memory for that long. Throws Error("CUDA_ERROR").
Ceilings measureCeilings(const CudaContext& context);

/// Launches a kernel that reads all of `data`; may be captured. `sink`: 4 bytes that are in practice not written.
void readThrough(const CudaContext& context, const void* data, size_t bytes, uint32_t* sink);

/// Launches a kernel that fills `count` numbers: uniform within [low, high] for float32 and bfloat16, random finite codes of ordinary size
/// for e4m3.
void fillRandom(const CudaContext& context, void* data, DType dtype, int64_t count, float low, float high, uint64_t seed);

}  // namespace longcat::cuda
