// Windows of CPU ranks: shared memory without a name, which other processes of the host open through /proc. Nothing is left behind when
// the last process that has it ends, however it ends.
#pragma once

#include <atomic>
#include <memory>

#include "comm/window_handle.h"
#include "runtime/tensor.h"

namespace longcat {

/// Zeroed shared memory, counted in `counter` while it lives, and what others need to open it. While it lives, they can. Throws
/// OUT_OF_MEMORY, or COMM_ERROR where the system has no such memory.
std::shared_ptr<Buffer> createSharedWindow(size_t bytes, std::shared_ptr<std::atomic<int64_t>> counter, WindowHandle& handle);

/// Another window of this host, of this process or another, mapped until the buffer goes. Throws COMM_ERROR saying what is wrong.
std::shared_ptr<Buffer> openSharedWindow(const WindowHandle& handle);

}  // namespace longcat
