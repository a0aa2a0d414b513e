// Sleeping until a word changes, and waking those who sleep: what both the pool and the command ring wait with.
#pragma once

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <climits>
#include <cstdint>

namespace longcat {

/// Tells the processor that this is a waiting loop.
inline void spinPause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// A place to sleep. sleepWhile(check) sleeps until wake() is called after check() stopped holding; a wake() that nobody waits for costs one load.
class Bed {
 public:
  /// Sleeps while `idle()` holds. May return early; callers loop.
  template <class Idle>
  void sleepWhile(const Idle& idle) {
    const uint32_t seen = bell_.load();
    sleepers_.fetch_add(1);
    if (idle()) syscall(SYS_futex, reinterpret_cast<uint32_t*>(&bell_), FUTEX_WAIT_PRIVATE, seen, nullptr, nullptr, 0);
    sleepers_.fetch_sub(1);
  }
  /// To be called after the change (with sequentially consistent order) that ends the others' idleness.
  void wake(int count = INT_MAX) {
    if (sleepers_.load() == 0) return;
    bell_.fetch_add(1);
    syscall(SYS_futex, reinterpret_cast<uint32_t*>(&bell_), FUTEX_WAKE_PRIVATE, count, nullptr, nullptr, 0);
  }

 private:
  std::atomic<uint32_t> bell_{0};
  std::atomic<int> sleepers_{0};
};

/// Spins while `idle()` holds, for at most `microseconds`. True if it stopped holding.
template <class Idle>
bool spinWhile(const Idle& idle, int microseconds) {
  using Clock = std::chrono::steady_clock;
  if (!idle()) return true;
  if (microseconds <= 0) return false;
  const auto end = Clock::now() + std::chrono::microseconds(microseconds);
  for (;;) {
    for (int i = 0; i < 32; ++i) {
      if (!idle()) return true;
      spinPause();
    }
    if (Clock::now() >= end) return !idle();
  }
}

}  // namespace longcat
