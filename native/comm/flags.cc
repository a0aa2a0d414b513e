// Flags are futexes in shared memory: a waiting rank sleeps until the word changes, and looks up at intervals, since who should raise it may
// be dead.
#include "comm/flags.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <climits>
#include <string>

#include "comm/window.h"
#include "runtime/error.h"
#include "runtime/futex.h"

namespace longcat {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kSpinMicroseconds = 20;
constexpr timespec kLookUpEvery = {0, 5'000'000};
constexpr auto kLong = std::chrono::seconds(1);

WindowFlag& flagAt(std::byte* window, size_t offset) { return *reinterpret_cast<WindowFlag*>(window + offset); }

/// Waits for one flag, and says for whom while that lasts long.
class Wait {
 public:
  Wait(WindowFlag& flag, int64_t exchange, int64_t source, int32_t* control)
      : epoch_(flag.epoch), wanted_(static_cast<uint32_t>(exchange)), source_(source), giveUp_(control[0]), waitingFor_(control[1]) {}
  ~Wait() {
    if (told_) waitingFor_.store(0);
  }

  void run() {
    if (spinWhile([this] { return !raised(); }, kSpinMicroseconds)) return;
    const auto start = Clock::now();
    for (;;) {
      const uint32_t seen = epoch_.load(std::memory_order_acquire);
      if (isThere(seen)) return;
      if (giveUp_.load() != 0) throw Error("COMM_ERROR", "the exchange was given up while waiting for rank " + std::to_string(source_));
      if (!told_ && Clock::now() - start > kLong) tell();
      syscall(SYS_futex, &epoch_.word, FUTEX_WAIT, seen, &kLookUpEvery, nullptr, 0);  // not private: the other rank is another process
    }
  }

 private:
  /// The number's low half only; it may wrap around, and a rank is never ahead by more than one.
  bool isThere(uint32_t epoch) const { return static_cast<int32_t>(epoch - wanted_) >= 0; }
  bool raised() const { return isThere(epoch_.load(std::memory_order_acquire)); }
  void tell() {
    waitingFor_.store(static_cast<int32_t>(source_ + 1));
    told_ = true;
  }

  struct Epoch : std::atomic_ref<uint32_t> {
    explicit Epoch(uint32_t& w) : std::atomic_ref<uint32_t>(w), word(w) {}
    uint32_t& word;
  };
  Epoch epoch_;
  uint32_t wanted_;
  int64_t source_;
  std::atomic_ref<int32_t> giveUp_, waitingFor_;
  bool told_ = false;
};

}  // namespace

void raiseFlag(std::byte* window, size_t offset, int64_t exchange, int32_t count) {
  WindowFlag& flag = flagAt(window, offset);
  flag.count = count;
  std::atomic_ref<uint32_t>(flag.epoch).store(static_cast<uint32_t>(exchange), std::memory_order_release);
  syscall(SYS_futex, &flag.epoch, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

int32_t awaitFlag(std::byte* window, size_t offset, int64_t exchange, int64_t source, int32_t* control) {
  WindowFlag& flag = flagAt(window, offset);
  Wait(flag, exchange, source, control).run();
  return flag.count;
}

int32_t awaitRows(std::byte* window, int64_t exchange, int64_t source, int64_t capacity, int32_t* control) {
  const int32_t count = awaitFlag(window, rowsFlagOffset(source), exchange, source, control);
  if (count < 0 || count > capacity) {
    throw Error("COMM_ERROR", "rank " + std::to_string(source) + " sent " + std::to_string(count) + " rows to a program of " +
                                  std::to_string(capacity) + ": the ranks do not run the same program");
  }
  return count;
}

}  // namespace longcat
