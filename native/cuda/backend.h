// A GPU as a backend of the runtime: queues are streams, recordings become CUDA graphs, reads settle when their event has come to pass.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "runtime/backend.h"

namespace longcat {

struct CudaBackendOptions {
  int gpu = 0;
  bool poison = false;
  bool fp8Activations = false;
  bool batchInvariant = true;
  std::string trapOn;  // tests: a kernel that traps runs in place of this operation
};

/// Throws DEVICE_UNAVAILABLE or CUDA_ERROR.
std::unique_ptr<Backend> makeCudaBackend(const CudaBackendOptions& options, std::shared_ptr<std::atomic<int64_t>> counter);

}  // namespace longcat
