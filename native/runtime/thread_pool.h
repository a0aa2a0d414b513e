// The CPU's threads: one parallel loop at a time, started by the owner thread, which works along.
#pragma once

#include <cstdint>

namespace longcat {

/// Threads wait by spinning for some microseconds, then sleep; an idle pool uses no CPU time.
class ThreadPool {
 public:
  explicit ThreadPool(int threads);  // total, the caller included: `threads - 1` are started
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
