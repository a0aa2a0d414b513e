// The GPU that tests and benchmarks use (harness_cuda.cc sets it up).
#pragma once

#include <cuda_runtime_api.h>

#include "cuda/context.h"
#include "ops/harness_cuda.h"

namespace longcat {

struct GpuState {
  GpuOptions options;
  CudaContext context;
  cudaDeviceProp properties{};
};

/// As the last useGpu() left it.
const GpuState& gpuState();

}  // namespace longcat
