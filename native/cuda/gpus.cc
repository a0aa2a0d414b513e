// Which GPUs there are, by cudart, which looks for the driver when it is first asked.
#include "runtime/gpus.h"

#include <cuda_runtime_api.h>
#include <dlfcn.h>

namespace longcat {
namespace {

constexpr int kLowestMajor = 8;  // what the kernels' mma.sync and cp.async need

std::string driverReason(cudaError_t error) {
  if (error == cudaErrorInsufficientDriver) {
    int driver = 0;
    if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) return "no NVIDIA driver was found (libcuda.so.1)";
    const auto version = [](int v) { return std::to_string(v / 1000) + "." + std::to_string(v % 1000 / 10); };
    return "the NVIDIA driver is for CUDA " + version(driver) + ", this build needs CUDA " + version(CUDART_VERSION) +
           " (CUDA 13: driver 580 or newer)";
  }
  if (error == cudaErrorNoDevice) return "the NVIDIA driver sees no GPU";
  return std::string("CUDA failed to start: ") + cudaGetErrorName(error) + ": " + cudaGetErrorString(error);
}

/// Free memory by the driver's management library, which makes no context on the GPUs that it is asked about.
class Nvml {
 public:
  Nvml() : library_(dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL)) {
    const auto init = find<int (*)()>("nvmlInit_v2");
    ready_ = init && init() == 0;
  }
  ~Nvml() {
    const auto shutdown = find<int (*)()>("nvmlShutdown");
    if (ready_ && shutdown) shutdown();
    if (library_) dlclose(library_);
  }
  Nvml(const Nvml&) = delete;
  Nvml& operator=(const Nvml&) = delete;

  /// `otherwise` where it cannot be known.
  int64_t freeBytes(int ordinal, int64_t otherwise) const {
    struct Memory {
      unsigned long long total, free, used;
    } memory{};
    char busId[32] = {};
    void* device = nullptr;
    const auto byBusId = find<int (*)(const char*, void**)>("nvmlDeviceGetHandleByPciBusId_v2");
    const auto memoryInfo = find<int (*)(void*, Memory*)>("nvmlDeviceGetMemoryInfo");
    const bool known = ready_ && byBusId && memoryInfo && cudaDeviceGetPCIBusId(busId, sizeof busId, ordinal) == cudaSuccess &&
                       byBusId(busId, &device) == 0 && memoryInfo(device, &memory) == 0;
    return known ? static_cast<int64_t>(memory.free) : otherwise;
  }

 private:
  template <class F>
  F find(const char* name) const {
    return library_ ? reinterpret_cast<F>(dlsym(library_, name)) : nullptr;
  }

  void* library_;
  bool ready_ = false;
};

}  // namespace

GpuList listGpus() {
  GpuList list;
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) {
    cudaGetLastError();
    list.reason = driverReason(error);
    return list;
  }
  const Nvml nvml;
  for (int i = 0; i < count; ++i) {
    const auto skip = [&](const std::string& why) { list.reason += (list.reason.empty() ? "cuda:" : "; cuda:") + std::to_string(i) + ": " + why; };
    cudaDeviceProp properties{};
    if (cudaGetDeviceProperties(&properties, i) != cudaSuccess) {
      skip(driverReason(cudaGetLastError()));
      continue;
    }
    const std::string capability = std::to_string(properties.major) + "." + std::to_string(properties.minor);
    if (properties.major < kLowestMajor) {
      skip(std::string(properties.name) + " has compute capability " + capability + ", and at least 8.0 is needed");
      continue;
    }
    list.devices.push_back({i, properties.name, capability, properties.multiProcessorCount, static_cast<int64_t>(properties.totalGlobalMem), nvml.freeBytes(i, static_cast<int64_t>(properties.totalGlobalMem))});
  }
  if (list.devices.empty() && list.reason.empty()) list.reason = "the NVIDIA driver sees no GPU";
  return list;
}

}  // namespace longcat
