#include "cuda/window.h"

#include <cuda_runtime_api.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <utility>

#include "cuda/check.h"
#include "runtime/error.h"
#include "runtime/memory.h"

namespace longcat {
namespace {

/// Windows of this process by token, for ranks that share it.
struct OwnWindows {
  std::mutex mutex;
  std::map<uint64_t, std::weak_ptr<Buffer>> byToken;
};
OwnWindows& ownWindows() {
  static OwnWindows all;
  return all;
}

class GpuWindow final : public Buffer {
 public:
  GpuWindow(int gpu, std::byte* data, size_t bytes, uint64_t token, std::shared_ptr<std::atomic<int64_t>> counter)
      : Buffer(data, bytes), gpu_(gpu), token_(token), counter_(std::move(counter)) {
    counter_->fetch_add(static_cast<int64_t>(bytes));
  }
  ~GpuWindow() override {
    {
      const std::lock_guard<std::mutex> lock(ownWindows().mutex);
      ownWindows().byToken.erase(token_);
    }
    cudaSetDevice(gpu_);
    cudaFree(data_);
    counter_->fetch_sub(static_cast<int64_t>(bytes_));
  }
  int gpu() const { return gpu_; }

 private:
  int gpu_;
  uint64_t token_;
  std::shared_ptr<std::atomic<int64_t>> counter_;
};

/// Another process's window.
class ImportedWindow final : public Buffer {
 public:
  ImportedWindow(int gpu, std::byte* data, size_t bytes) : Buffer(data, bytes), gpu_(gpu) {}
  ~ImportedWindow() override {
    cudaSetDevice(gpu_);
    cudaIpcCloseMemHandle(data_);
  }

 private:
  int gpu_;
};

/// What CUDA says to a call that failed; it is forgotten there.
std::string wordsOf(cudaError_t error) {
  cudaGetLastError();
  return std::string(cudaGetErrorName(error)) + ": " + cudaGetErrorString(error);
}

void allowAccess(int gpu, int peer) {
  if (gpu == peer) return;
  const std::string who = "GPU " + std::to_string(gpu) + " cannot reach the memory of GPU " + std::to_string(peer);
  int possible = 0;
  LONGCAT_CUDA(cudaDeviceCanAccessPeer(&possible, gpu, peer));
  if (!possible) throw Error("COMM_ERROR", who + ": there is no peer access between them");
  const cudaError_t error = cudaDeviceEnablePeerAccess(peer, 0);
  if (error == cudaErrorPeerAccessAlreadyEnabled) cudaGetLastError();
  else if (error != cudaSuccess) throw Error("COMM_ERROR", who + ": " + wordsOf(error));
}

std::shared_ptr<Buffer> openOwnWindow(int gpu, const WindowHandle& handle) {
  std::shared_ptr<Buffer> window;
  {
    const std::lock_guard<std::mutex> lock(ownWindows().mutex);
    const auto found = ownWindows().byToken.find(handle.token);
    if (found != ownWindows().byToken.end()) window = found->second.lock();
  }
  if (!window) throw Error("COMM_ERROR", "its window, of this process, is not there any more");
  allowAccess(gpu, static_cast<const GpuWindow&>(*window).gpu());
  return window;
}

}  // namespace

std::shared_ptr<Buffer> createGpuWindow(int gpu, size_t bytes, std::shared_ptr<std::atomic<int64_t>> counter, WindowHandle& handle) {
  LONGCAT_CUDA(cudaSetDevice(gpu));
  void* data = nullptr;
  const cudaError_t error = cudaMalloc(&data, std::max<size_t>(bytes, 1));
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    size_t free = 0, total = 0;
    LONGCAT_CUDA(cudaMemGetInfo(&free, &total));
    throw outOfMemoryError(bytes, "a window between ranks on a GPU", static_cast<int64_t>(free));
  }
  LONGCAT_CUDA(error);
  handle = WindowHandle();
  handle.token = randomToken();
  auto window = std::make_shared<GpuWindow>(gpu, static_cast<std::byte*>(data), bytes, handle.token, std::move(counter));
  LONGCAT_CUDA(cudaMemset(data, 0, bytes));
  LONGCAT_CUDA(cudaDeviceSynchronize());  // others may write as soon as they know of it
  handle.gpu = 1;
  handle.process = getpid();
  handle.processToken = thisProcessToken();
  handle.address = reinterpret_cast<uint64_t>(data);
  handle.bytes = bytes;
  cudaIpcMemHandle_t exported;
  static_assert(sizeof exported == sizeof handle.ipc);
  // Where the system exports no memory, ranks within this process do without; others hear of it when they open the window.
  if (cudaIpcGetMemHandle(&exported, data) == cudaSuccess) std::memcpy(handle.ipc, &exported, sizeof exported);
  else cudaGetLastError();
  const std::lock_guard<std::mutex> lock(ownWindows().mutex);
  ownWindows().byToken[handle.token] = window;
  return window;
}

std::shared_ptr<Buffer> openGpuWindow(int gpu, const WindowHandle& handle) {
  const std::string who = "the window of process " + std::to_string(handle.process);
  if (!handle.gpu) throw Error("COMM_ERROR", who + " is on the CPU, this rank is on a GPU");
  LONGCAT_CUDA(cudaSetDevice(gpu));
  if (handle.processToken == thisProcessToken()) return openOwnWindow(gpu, handle);
  if (std::all_of(std::begin(handle.ipc), std::end(handle.ipc), [](std::byte b) { return b == std::byte{0}; })) {
    throw Error("COMM_ERROR", who + " cannot be opened: CUDA exports no memory to other processes there");
  }
  cudaIpcMemHandle_t exported;
  std::memcpy(&exported, handle.ipc, sizeof exported);
  void* data = nullptr;
  const cudaError_t error = cudaIpcOpenMemHandle(&data, exported, cudaIpcMemLazyEnablePeerAccess);
  if (error != cudaSuccess) {
    throw Error("COMM_ERROR", who + " cannot be opened on GPU " + std::to_string(gpu) + ": " + wordsOf(error) + "; ranks on GPUs must be processes of one host whose GPUs reach one another's memory");
  }
  return std::make_shared<ImportedWindow>(gpu, static_cast<std::byte*>(data), handle.bytes);
}

}  // namespace longcat
