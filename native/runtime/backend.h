// What runs a device's commands: the CPU's thread pool, or a GPU's streams. The Device keeps the ring, the faults and the promises;
// a backend knows how its memory is allocated and how each command is carried out.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>

#include "comm/window_handle.h"
#include "runtime/command.h"
#include "runtime/error.h"

namespace longcat {

class Communicator;  // comm/communicator.h

/// Settles a promise, on the owner thread.
using Settle = std::function<void(int token, ReadBuffer* read, std::shared_ptr<const Fault> fault)>;

/// All methods but those of the first group belong to the owner thread. What they cannot do they throw.
class Backend {
 public:
  virtual ~Backend() = default;

  // ---- Any thread
  /// Starts the threads of its own; the owner thread runs by then, so that it is counted where threads are few.
  virtual void startThreads() {}
  virtual bool onGpu() const = 0;
  /// Memory of the device; whether it is zeroed, `zeroesMemory` says.
  virtual std::shared_ptr<Buffer> allocate(size_t bytes, const char* purpose) = 0;
  /// Memory that the host writes and the device reads over the bus.
  virtual std::shared_ptr<Buffer> allocateHost(size_t bytes, const char* purpose) = 0;
  virtual bool zeroesMemory() const = 0;
  virtual void reserve(size_t bytes) = 0;
  virtual int64_t freeBytes() const = 0;
  /// From here on exchanges between ranks that go through NCCL go through this.
  virtual void useCommunicator(std::shared_ptr<Communicator>) { throw Error("DEVICE_UNAVAILABLE", "NCCL joins GPUs, and this device is none"); }
  /// Zeroed memory of the device into which other ranks can write once they have opened it by the handle. JavaScript's thread alone.
  virtual std::shared_ptr<Buffer> createWindow(size_t, WindowHandle&) { throw Error("COMM_ERROR", "this device has no windows for other ranks"); }
  /// Another rank's window, where this device sees it, open until the buffer goes. Throws COMM_ERROR saying what is wrong.
  virtual std::shared_ptr<Buffer> openWindow(const WindowHandle&) { throw Error("COMM_ERROR", "this device has no windows for other ranks"); }

  // ---- Owner thread
  virtual void start(Settle settle) = 0;
  /// Ends all work and gives everything back but buffers that are still held.
  virtual void end() = 0;
  virtual void op(const Command& command) = 0;
  virtual void fill(const Command& command) = 0;
  virtual void copy(const Command& command) = 0;
  /// The payload may be reused once it returns.
  virtual void write(const Command& command) = 0;
  /// Settles the token, now or later.
  virtual void read(const Command& command) = 0;
  virtual void done(const Command& command) = 0;
  virtual void convert(const Command& command) = 0;
  virtual void upload(const Command& command) = 0;
  virtual void signal(const Command& command) = 0;
  virtual void wait(const Command& command) = 0;
  virtual void scratch(const Command& command) = 0;
  /// Makes a recording fast to replay; false where memory is too short for that.
  virtual bool prepare(const Graph& graph) = 0;
  /// Runs a recording as one piece; false if it cannot, and its commands are to be run one by one.
  virtual bool replay(const Command& command) = 0;

  /// Settles what has come to pass; true while anything is under way. Throws if the device has failed.
  virtual bool poll() = 0;
  /// Waits for all that was enqueued (debug: "sync").
  virtual void synchronise() = 0;
  /// After a failure: whether the device is lost for good.
  virtual bool lost() = 0;
  /// The device is lost: settles all that is under way with `fault`.
  virtual void abandon(const std::shared_ptr<const Fault>& fault) = 0;
};

}  // namespace longcat
