// What an operation's body for GPUs gets: a stream to launch on, and what the card is like.
#pragma once

#include <cuda_runtime_api.h>

namespace longcat {

class Communicator;  // comm/communicator.h

struct CudaContext {
  cudaStream_t stream = nullptr;
  int multiprocessors = 1;
  int sharedBytes = 48 << 10;      // of one block, at most (opt-in)
  int capability = 80;             // 10 · major + minor; 89 on a card of 9.0 whose own kernels are not there, or not wanted
  bool batchInvariant = true;      // a row's bits do not depend on the others (docs/numerics.md, 4); otherwise work may be cut as suits the batch
  bool fp8Activations = false;     // inputs of products with FP8 weights are quantised per 128 channels (docs/numerics.md, 7)
  Communicator* communicator = nullptr;  // of exchanges between ranks that go through NCCL; null where there are none

  void useCard(const cudaDeviceProp& card) {
    multiprocessors = card.multiProcessorCount;
    sharedBytes = static_cast<int>(card.sharedMemPerBlockOptin);
    capability = 10 * card.major + card.minor;
#if defined(LONGCAT_NO_SM90A)
    usePortableKernels();  // those that need sm_90a are empty without it
#endif
  }
  /// A card of 9.0 runs what other cards run.
  void usePortableKernels() {
    if (capability == 90) capability = 89;
  }
};

}  // namespace longcat
