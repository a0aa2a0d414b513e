// The GPUs of this machine that this build can use.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace longcat {

struct Gpu {
  int ordinal = 0;           // N of "cuda:N"
  std::string name;
  std::string capability;    // "9.0"
  int multiprocessors = 0;
  int64_t memoryBytes = 0, freeBytes = 0;
};

struct GpuList {
  std::vector<Gpu> devices;
  std::string reason;        // why there is none, or why others that there are cannot be used
};

/// Never throws for want of a GPU, driver or CUDA backend: `reason` says what is missing.
GpuList listGpus();

}  // namespace longcat
