// The pool: one word says which loop runs and how many of its tasks are still unclaimed; threads claim by compare-and-swap.
// A thread that the operating system has put aside holds nothing up: the caller waits for claimed tasks, not for threads.
#include "runtime/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "runtime/futex.h"
#include "runtime/processor.h"
#include "runtime/start_thread.h"

namespace longcat {
namespace {

constexpr int kTaskBits = 24;  // unclaimed tasks in the low bits of the word, the loop's number above
constexpr int64_t kMaxTasks = (int64_t{1} << kTaskBits) - 1;
constexpr int kSpinMicroseconds = 30;

// Threads of all pools of this process: with more of them than processors, waiting in a loop steals from those who work.
std::atomic<int> poolThreads{0};

}  // namespace

struct ThreadPool::State {
  const int threads;
  const int processors = availableThreads();
  // word: (number of the loop << kTaskBits) | unclaimed tasks. The fields below it belong to that loop; they change only
  // while nothing is unclaimed, so who claims a task by changing the word has read the right ones.
  alignas(64) std::atomic<uint64_t> word{0};
  std::atomic<int64_t> tasks{0};
  std::atomic<int64_t> firstTask{0};
  std::atomic<void (*)(void*, int64_t, int)> body{nullptr};
  std::atomic<void*> context{nullptr};
  alignas(64) std::atomic<int64_t> finished{0};
  alignas(64) std::atomic<bool> stop{false};
  std::atomic<bool> failed{false};
  std::exception_ptr failure;
  Bed bed;
  std::vector<std::thread> workers;

  explicit State(int total) : threads(total) { poolThreads.fetch_add(threads); }
  ~State() {
    stop.store(true);
    bed.wake();
    for (std::thread& worker : workers) worker.join();
    poolThreads.fetch_sub(threads);
  }

  void start() {
    workers.reserve(static_cast<size_t>(threads));
    for (int t = 1; t < threads; ++t) workers.push_back(startThread([this, t] { work(t); }, t, threads));
  }

  bool crowded() const { return poolThreads.load(std::memory_order_relaxed) > processors; }
  bool nothingToClaim() const { return (word.load() & kMaxTasks) == 0; }

  /// Claims and runs tasks until none is unclaimed.
  void drain(int thread) {
    int64_t ran = 0;
    uint64_t seen = word.load(std::memory_order_acquire);
    while ((seen & kMaxTasks) != 0) {
      const int64_t task = tasks.load(std::memory_order_relaxed) - static_cast<int64_t>(seen & kMaxTasks);
      const int64_t first = firstTask.load(std::memory_order_relaxed);
      const auto run = body.load(std::memory_order_relaxed);
      void* const what = context.load(std::memory_order_relaxed);
      std::atomic_thread_fence(std::memory_order_acquire);
      if (!word.compare_exchange_weak(seen, seen - 1, std::memory_order_acq_rel, std::memory_order_acquire)) continue;
      call(run, what, first + task, thread);
      ++ran;
      seen = word.load(std::memory_order_acquire);
      // Report before another loop can begin: the caller starts one only after all of this one's tasks are reported.
      if ((seen & kMaxTasks) == 0) break;
    }
    if (ran > 0) finished.fetch_add(ran, std::memory_order_acq_rel);
  }

  void call(void (*run)(void*, int64_t, int), void* what, int64_t task, int thread) {
    if (failed.load(std::memory_order_relaxed)) return;
    try {
      run(what, task, thread);
    } catch (...) {
      if (!failed.exchange(true)) failure = std::current_exception();
    }
  }

  void work(int thread) {
    const auto idle = [this] { return nothingToClaim() && !stop.load(); };
    while (!stop.load(std::memory_order_relaxed)) {
      drain(thread);
      if (!spinWhile(idle, crowded() ? 2 : kSpinMicroseconds)) bed.sleepWhile(idle);
    }
  }
};

ThreadPool::ThreadPool(int threads) {
  auto state = std::make_unique<State>(std::max(1, threads));
  state->start();  // if a worker does not start, the state's end stops the others
  state_ = state.release();
}

ThreadPool::~ThreadPool() { delete state_; }

int ThreadPool::threads() const { return state_->threads; }

void ThreadPool::run(int64_t tasks, void (*body)(void* context, int64_t task, int thread), void* context) {
  State& s = *state_;
  if (s.threads == 1 || tasks == 1) {
    for (int64_t task = 0; task < tasks; ++task) body(context, task, 0);
    return;
  }
  for (int64_t first = 0; first < tasks; first += kMaxTasks) {
    const int64_t count = std::min(tasks - first, kMaxTasks);
    s.finished.store(0, std::memory_order_relaxed);
    s.tasks.store(count, std::memory_order_relaxed);
    s.firstTask.store(first, std::memory_order_relaxed);
    s.body.store(body, std::memory_order_relaxed);
    s.context.store(context, std::memory_order_relaxed);
    const uint64_t number = (s.word.load(std::memory_order_relaxed) >> kTaskBits) + 1;
    s.word.store((number << kTaskBits) | static_cast<uint64_t>(count));
    s.bed.wake(static_cast<int>(std::min<int64_t>(count - 1, s.threads)));
    s.drain(0);
    const auto unfinished = [&] { return s.finished.load(std::memory_order_acquire) != count; };
    while (!spinWhile(unfinished, s.crowded() ? 2 : 20)) sched_yield();
  }
  if (s.failed.exchange(false)) std::rethrow_exception(std::exchange(s.failure, nullptr));
}

}  // namespace longcat
