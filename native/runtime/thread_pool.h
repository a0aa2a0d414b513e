// The CPU's threads: one parallel loop at a time, started by the owner thread, which works along.
#pragma once

#include <cstdint>

namespace longcat {

constexpr int kMaxThreads = 1024;  // of one pool

/// Threads without work spin for some microseconds, then sleep: an idle pool uses no CPU time. The caller of run() never sleeps. Once it
/// finds no task to claim, it spins and then yields its processor over and over until the last claimed task is done: that takes no longer
/// than one task, and a sleep's end would come tens of microseconds late, after each of the hundreds of loops of a step.
class ThreadPool {
 public:
  /// `threads` in total, the caller included: one less is started. Throws DEVICE_UNAVAILABLE if the system does not start that many.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const;

  /// Calls body(context, task, thread) once for every task in [0, tasks), thread in [0, threads()), and returns when all
  /// are done. Which thread gets which task is not fixed, so a result must depend on the task alone.
  void run(int64_t tasks, void (*body)(void* context, int64_t task, int thread), void* context);

  /// The same for a callable. Kept free of std:: so that it may be used in code compiled for one instruction set.
  template <class F>
  void parallelFor(int64_t tasks, const F& f) {
    run(tasks, [](void* c, int64_t task, int thread) { (*static_cast<const F*>(c))(task, thread); },
        const_cast<void*>(static_cast<const void*>(&f)));
  }

 private:
  struct State;
  State* state_;
};

}  // namespace longcat
