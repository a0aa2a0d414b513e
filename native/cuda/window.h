// Windows of GPU ranks (comm/window.h): memory of one GPU into which the kernels of others write, by NVLink or over the bus.
#pragma once

#include <atomic>
#include <memory>

#include "comm/window_handle.h"
#include "runtime/tensor.h"

namespace longcat {

/// Zeroed memory of GPU `gpu` from CUDA itself, not from an arena, since it is given to other processes whole; counted in `counter` while it lives.
/// Throws OUT_OF_MEMORY.
std::shared_ptr<Buffer> createGpuWindow(int gpu, size_t bytes, std::shared_ptr<std::atomic<int64_t>> counter, WindowHandle& handle);

/// Another rank's window as GPU `gpu` sees it: of this process itself, or of another of this host by CUDA's handle. Throws COMM_ERROR saying what is wrong.
std::shared_ptr<Buffer> openGpuWindow(int gpu, const WindowHandle& handle);

}  // namespace longcat
