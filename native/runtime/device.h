// A device: an owner thread that takes commands from a ring, in order, and has its backend run them. All methods belong to one
// thread (JavaScript's) unless said; none of them waits for the owner thread, except with `sync` and stop().
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "runtime/backend.h"
#include "runtime/command.h"
#include "runtime/futex.h"

namespace longcat {

struct DeviceOptions {
  int threads = 1;       // of the CPU's pool; 1 for a GPU
  Isa isa = Isa::plain;
  int gpu = -1;          // its ordinal; -1: the CPU
  bool fp8Activations = false;  // GPU: inputs of products with FP8 weights are quantised too
  bool batchInvariant = true;   // GPU: a row's bits do not depend on the others
  bool poison = false;   // before each operation its outputs and the scratch are filled with 0xFF bytes
  bool sync = false;     // each command is finished before its call returns; failures are thrown there
  std::string trapOn;    // GPU, tests of lost devices: a kernel that traps runs in place of this operation
  std::string faultOn;   // tests of error paths: the operation of this name fails when it is run
};

/// A promise's end: what JavaScript gave `token` for has come to pass, or failed.
struct Completion {
  int token = -1;
  ReadBuffer* read = nullptr;            // give back with Device::recycle
  std::shared_ptr<const Fault> fault;    // null: all is well
  double ms = 0;                         // when it came to pass, on the monotonic clock
};

/// Faults. When a body throws, what was enqueued before JavaScript was told of it is not run any more (it would work on what the
/// failed operation left), and every read() and done() among it fails with the fault. Writes, fills and copies still happen. What
/// is enqueued after JavaScript was told runs as ever: each command carries a wave number, which telling() raises. A GPU that is lost
/// (CUDA's sticky errors) stays so: everything fails with that fault from then on.
class Device {
 public:
  /// `notify` is called on the owner thread whenever completions are there to be taken.
  Device(DeviceOptions options, std::function<void()> notify);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  const DeviceOptions& options() const { return options_; }

  // Each returns false if the ring is full.
  bool enqueue(int queue, const OpSpec& spec, const OpArgs& args);
  bool fill(int queue, const Tensor& tensor, int byte);
  bool copy(int queue, const Tensor& from, size_t fromByte, const Tensor& to, size_t toByte, size_t bytes);
  bool write(int queue, const Tensor& tensor, size_t byteOffset, const void* data, size_t bytes);
  bool read(int queue, const Tensor& tensor, size_t byteOffset, size_t bytes, int token);
  bool done(int queue, int token);
  bool replay(int queue, std::shared_ptr<const Graph> graph);

  bool signal(int queue, int event);
  bool wait(int queue, int event);

  /// A dense zeroed tensor; with `toHost` in host memory that a GPU reads over the bus, not zeroed there. Throws OUT_OF_MEMORY.
  Tensor allocate(DType dtype, const int64_t* shape, int rank, bool toHost = false);
  /// Numbers that the host has (a mapped file's) as a tensor of this device: themselves on the CPU; on a GPU a copy, made in queue order,
  /// in its memory or in the host's where it reads them over the bus. Waits for room.
  Tensor upload(const Tensor& from, bool toHost);
  /// Makes a stack of host-side part addresses usable by operations. Waits for room.
  void listParts(Tensor& stack);
  /// Zeroed memory that other ranks write into (comm/window.h), uint8 [bytes], and what they need to open it. Throws OUT_OF_MEMORY, COMM_ERROR.
  Tensor createWindow(size_t bytes, WindowHandle& handle);
  /// Where this device sees each rank's window, int64 [ranks]; they are open while it lives. `own` is not opened. Waits for room. Throws
  /// COMM_ERROR naming the rank.
  Tensor joinWindows(const Tensor& own, int64_t rank, const std::vector<WindowHandle>& handles);
  /// Zeroed int32 words of the host (host_words.h). When the device is stopped, not closed, word 0 of each is set to 1: an exchange whose
  /// `control` they are gives up.
  Tensor hostWords(int64_t count);
  void reserve(size_t bytes) { backend_->reserve(bytes); }
  int64_t freeBytes() const { return backend_->freeBytes(); }
  bool onGpu() const { return backend_->onGpu(); }
  /// Before the first exchange through it is enqueued.
  void useCommunicator(std::shared_ptr<Communicator> communicator) { backend_->useCommunicator(std::move(communicator)); }

  /// A copy of `from` in another dtype, made in queue order. Waits for room.
  Tensor convert(const Tensor& from, const Tensor* scale, DType dtype);

  /// True if half of the ring is free now; else `token` is settled when it is.
  bool room(int token);
  /// Commands that fit now.
  int freeSlots() const;

  void beginRecord();
  std::shared_ptr<const Graph> endRecord();
  bool recording() const { return graph_ != nullptr; }

  /// What has come to pass since the last call; valid until the next.
  const std::vector<Completion>& takeCompletions();
  void recycle(ReadBuffer* buffer);
  /// To be called when JavaScript is told of a fault.
  void telling(const Fault& fault);

  /// The owner thread finishes what is enqueued, settles `token` and ends. Nothing may be enqueued afterwards.
  void finish(int token);
  /// Ends the owner thread after the operation that it is at, and waits for that. Idempotent.
  void stop();

  int64_t allocatedBytes() const { return allocated_->load(); }
  /// Graphs that a GPU had no memory to prepare: a replay runs their commands one by one.
  int eagerGraphs() const { return eagerGraphs_.load(); }

 private:
  static constexpr int kSlots = 4096, kReserve = 512;  // the reserve is for read, done and the runtime's own commands
  static constexpr size_t kPayloadBytes = size_t{8} << 20, kLargePayload = size_t{1} << 20;

  Command* claim(CommandKind kind, int queue, bool fromReserve);
  Command* claimWaiting(CommandKind kind);
  bool mark(CommandKind kind, int queue, int event);
  bool publish(bool settles = false);
  void record(const Command& command);
  void growScratch(size_t threadBytes);
  void giveUpWaiting();
  void place(Command& command, const void* data, size_t bytes);
  void throwFault();

  // Owner thread
  void own();
  bool idle() const { return head_.load() == tail_.load() && !stopping_.load() && !closing_.load(); }
  void execute(Command& command);
  void run(Command& command);
  void runOp(const Command& command, const Graph* graph);
  void runGraph(const Command& command);
  bool poll();
  bool dropped(const Command& command) const { return fault_ && (lost_ || command.wave <= fault_->wave); }
  /// Keeps what went wrong for those who wait; `forGood`: the device is lost, whatever the backend says.
  void fail(const std::string& what, const std::exception& error, bool forGood = false);
  void settle(int token, ReadBuffer* read, std::shared_ptr<const Fault> fault);
  void settleRoom();

  DeviceOptions options_;
  std::function<void()> notify_;
  std::shared_ptr<std::atomic<int64_t>> allocated_ = std::make_shared<std::atomic<int64_t>>(0);

  std::atomic<int> eagerGraphs_{0};

  // The ring: [head_, tail_) is in use; numbers only grow.
  std::vector<Command> ring_;
  std::shared_ptr<Buffer> params_;
  alignas(64) std::atomic<uint64_t> head_{0};
  alignas(64) std::atomic<uint64_t> tail_{0};
  std::atomic<bool> stopping_{false}, closing_{false};
  Bed bed_;

  // The payload ring: bytes [payloadHead_, payloadTail_) are in use.
  std::shared_ptr<Buffer> payload_;
  std::atomic<uint64_t> payloadHead_{0};
  uint64_t payloadTail_ = 0;

  std::mutex mutex_;                      // of the next two
  std::vector<Completion> completions_;
  std::vector<int> roomTokens_;
  std::atomic<bool> roomWanted_{false};
  int finishToken_ = -1;

  // JavaScript's thread
  uint64_t wave_ = 1;
  size_t scratchAsked_ = 0;               // bytes of one thread
  std::unique_ptr<Graph> graph_;
  int numGraphs_ = 0;
  std::vector<std::weak_ptr<Buffer>> hostWords_;
  std::vector<std::unique_ptr<ReadBuffer>> readBuffers_;
  std::vector<ReadBuffer*> freeReadBuffers_;
  std::vector<Completion> taken_;

  // Owner thread
  std::shared_ptr<const Fault> fault_;
  bool lost_ = false;
  std::unique_ptr<Backend> backend_;
  std::thread owner_;
};

}  // namespace longcat
