// A GPU as a backend of the runtime: queues are streams, recordings become CUDA graphs, reads settle when their event has come to pass.
#pragma once

#include <atomic>
#include <memory>

#include "runtime/backend.h"

namespace longcat {

/// Throws DEVICE_UNAVAILABLE or CUDA_ERROR.
std::unique_ptr<Backend> makeCudaBackend(int gpu, bool poison, bool fp8Activations, std::shared_ptr<std::atomic<int64_t>> counter);

}  // namespace longcat
