// The CPU: operations on a thread pool, everything at once and in order.
#pragma once

#include <memory>

#include "runtime/backend.h"
#include "runtime/thread_pool.h"

namespace longcat {

class CpuBackend final : public Backend {
 public:
  CpuBackend(int threads, Isa isa, bool poison, std::shared_ptr<std::atomic<int64_t>> counter);

  void startThreads() override { pool_ = std::make_unique<ThreadPool>(threads_); }
  bool onGpu() const override { return false; }
  std::shared_ptr<Buffer> allocate(size_t bytes, const char* purpose) override;
  std::shared_ptr<Buffer> allocateHost(size_t bytes, const char* purpose) override { return allocate(bytes, purpose); }
  bool zeroesMemory() const override { return true; }
  void reserve(size_t) override {}
  int64_t freeBytes() const override;
  std::shared_ptr<Buffer> createWindow(size_t bytes, WindowHandle& handle) override;
  std::shared_ptr<Buffer> openWindow(const WindowHandle& handle) override;

  void start(Settle settle) override { settle_ = std::move(settle); }
  void end() override { pool_.reset(); }
  void op(const Command& command) override;
  void fill(const Command& command) override;
  void copy(const Command& command) override;
  void write(const Command& command) override;
  void read(const Command& command) override;
  void done(const Command& command) override { settle_(command.token, nullptr, nullptr); }
  void convert(const Command& command) override;
  void upload(const Command& command) override;
  void signal(const Command&) override {}  // its queues are one
  void wait(const Command&) override {}
  void scratch(const Command& command) override;
  bool prepare(const Graph&) override { return true; }
  bool replay(const Command&) override { return false; }
  bool poll() override { return false; }
  void synchronise() override {}
  bool lost() override { return false; }
  void abandon(const std::shared_ptr<const Fault>&) override {}

 private:
  Settle settle_;
  int threads_;
  Isa isa_;
  bool poison_;
  std::shared_ptr<std::atomic<int64_t>> counter_;
  std::shared_ptr<Buffer> scratch_;
  size_t scratchBytes_ = 0;  // of one thread
  std::unique_ptr<ThreadPool> pool_;  // there before the first command
};

}  // namespace longcat
