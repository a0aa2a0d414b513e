#include "comm/shared_window.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstring>
#include <string>
#include <utility>

#include "runtime/error.h"
#include "runtime/memory.h"
#include "runtime/processor.h"

namespace longcat {
namespace {

std::string lastError() { return std::strerror(errno); }

/// An open file that closes itself.
class File {
 public:
  explicit File(int descriptor) : descriptor_(descriptor) {}
  File(File&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() {
    if (descriptor_ >= 0) close(descriptor_);
  }
  int descriptor() const { return descriptor_; }

 private:
  int descriptor_;
};

class SharedBuffer : public Buffer {
 public:
  SharedBuffer(std::byte* data, size_t bytes, File file, std::shared_ptr<std::atomic<int64_t>> counter)
      : Buffer(data, bytes), file_(std::move(file)), counter_(std::move(counter)) {
    if (counter_) counter_->fetch_add(static_cast<int64_t>(bytes));
  }
  ~SharedBuffer() override {
    munmap(data_, bytes_);
    if (counter_) counter_->fetch_sub(static_cast<int64_t>(bytes_));
  }

 private:
  File file_;  // open for those who come by /proc; closed where the mapping is enough
  std::shared_ptr<std::atomic<int64_t>> counter_;
};

/// The memory's name, by which an opened file is known to be this window: another process of the same number has another.
std::string nameOf(uint64_t token) { return "longcat-window-" + std::to_string(token); }

std::byte* map(const File& file, size_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file.descriptor(), 0);
  return memory == MAP_FAILED ? nullptr : static_cast<std::byte*>(memory);
}

/// Whether `path` in /proc is the memory of that name.
bool leadsTo(const std::string& path, const std::string& name) {
  char target[PATH_MAX];
  const ssize_t length = readlink(path.c_str(), target, sizeof target);
  return length > 0 && std::string(target, static_cast<size_t>(length)) == "/memfd:" + name + " (deleted)";
}

}  // namespace

uint64_t randomToken() {
  uint64_t token = 0;
  if (getrandom(&token, sizeof token, 0) != sizeof token) throw Error("COMM_ERROR", "the system gives no random numbers: " + lastError());
  return token;
}

uint64_t thisProcessToken() {
  static const uint64_t token = randomToken();
  return token;
}

std::shared_ptr<Buffer> createSharedWindow(size_t bytes, std::shared_ptr<std::atomic<int64_t>> counter, WindowHandle& handle) {
  const int64_t there = availableMemory();
  if (bytes > static_cast<size_t>(there)) throw outOfMemoryError(bytes, "a window between ranks", there);
  handle = WindowHandle();
  handle.token = randomToken();
  File file(memfd_create(nameOf(handle.token).c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (file.descriptor() < 0) throw Error("COMM_ERROR", "no shared memory for a window between ranks (memfd_create): " + lastError());
  std::byte* data = nullptr;
  if (ftruncate(file.descriptor(), static_cast<off_t>(bytes)) != 0 || !(data = map(file, bytes))) {
    throw outOfMemoryError(bytes, "a window between ranks", there);
  }
  fcntl(file.descriptor(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW);  // nobody can take pages away from those who have it mapped
  handle.file = file.descriptor();
  handle.process = getpid();
  handle.processToken = thisProcessToken();
  handle.address = reinterpret_cast<uint64_t>(data);
  handle.bytes = bytes;
  return std::make_shared<SharedBuffer>(data, bytes, std::move(file), std::move(counter));
}

std::shared_ptr<Buffer> openSharedWindow(const WindowHandle& handle) {
  const std::string path = "/proc/" + std::to_string(handle.process) + "/fd/" + std::to_string(handle.file);
  const std::string who = "the window of process " + std::to_string(handle.process);
  if (handle.gpu) throw Error("COMM_ERROR", who + " is a GPU's, this rank is on the CPU");
  const File file(open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (file.descriptor() < 0) throw Error("COMM_ERROR", who + " cannot be opened (" + path + "): " + lastError() + "; ranks on CPUs must be processes of one user on one host, in one container");
  if (!leadsTo("/proc/self/fd/" + std::to_string(file.descriptor()), nameOf(handle.token))) {
    throw Error("COMM_ERROR", who + " is not there any more, or on another host (" + path + " is something else)");
  }
  std::byte* data = map(file, handle.bytes);
  if (!data) throw Error("COMM_ERROR", who + " cannot be mapped: " + lastError());
  return std::make_shared<SharedBuffer>(data, handle.bytes, File(-1), nullptr);
}

}  // namespace longcat
