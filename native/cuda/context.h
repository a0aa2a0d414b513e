// What an operation's body for GPUs gets: a stream to launch on, and what the card is like.
#pragma once

#include <cuda_runtime_api.h>

namespace longcat {

struct CudaContext {
  cudaStream_t stream = nullptr;
  int multiprocessors = 1;
  int sharedBytes = 48 << 10;      // of one block, at most (opt-in)
  int capability = 80;             // 10 · major + minor
  bool batchInvariant = true;      // a row's bits do not depend on the others (docs/numerics.md, 4); otherwise work may be cut as suits the batch
  bool fp8Activations = false;     // inputs of products with FP8 weights are quantised per 128 channels (docs/numerics.md, 7)
};

}  // namespace longcat
