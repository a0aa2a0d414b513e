// What a rank tells the others so that they can open its window: bytes that travel by any way.
#pragma once

#include <cstddef>
#include <cstdint>

namespace longcat {

struct WindowHandle {
  uint64_t magic = kMagic;
  uint32_t gpu = 0;            // 1: memory of a GPU
  int32_t file = -1;           // CPU: the descriptor of the shared memory in its process
  int64_t process = 0;         // its process id
  uint64_t token = 0;          // a random number: this window and no other
  uint64_t processToken = 0;   // a random number of the process, since other hosts and containers count processes anew
  uint64_t address = 0;        // where its own process has it
  uint64_t bytes = 0;
  std::byte ipc[64] = {};      // GPU: CUDA's handle

  static constexpr uint64_t kMagic = 0x31776f646e69774c;  // "Lwindow1"
};
static_assert(sizeof(WindowHandle) == 120);  // no gaps: all of it is sent

/// A random number.
uint64_t randomToken();
/// One that stays the same while this process lives.
uint64_t thisProcessToken();

}  // namespace longcat
