// The device's owner thread: takes commands from the ring, has the backend run them, keeps faults and settles promises.
#include <sched.h>

#include <chrono>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "runtime/device.h"
#include "runtime/error.h"
#include "runtime/processor.h"

namespace longcat {
namespace {

constexpr int kOwnerSpinMicroseconds = 30;

const char* verb(CommandKind kind) {
  switch (kind) {
    case CommandKind::fill: return "fill";
    case CommandKind::copy: return "copy";
    case CommandKind::write: return "write";
    case CommandKind::read: return "read";
    case CommandKind::convert: return "conversion";
    case CommandKind::upload: return "upload";
    case CommandKind::prepare: return "capture";
    case CommandKind::replay: return "replay";
    case CommandKind::done: return "done";
    case CommandKind::signal: return "signal";
    case CommandKind::wait: return "wait";
    case CommandKind::scratch: return "scratch";
    case CommandKind::op: break;  // run() names the operation
  }
  return "operation";
}

}  // namespace

void Device::own() {
  const int spin = options_.threads > availableThreads() ? 2 : kOwnerSpinMicroseconds;
  const auto waiting = [this] { return idle(); };
  try {
    backend_->start([this](int token, ReadBuffer* read, std::shared_ptr<const Fault> fault) { settle(token, read, std::move(fault)); });
  } catch (const std::exception& error) {
    fail("the device", error, true);
  }
  while (!stopping_.load()) {
    const bool underWay = poll();
    const uint64_t head = head_.load(std::memory_order_relaxed);
    if (head != tail_.load(std::memory_order_acquire)) {
      Command& command = ring_[head % kSlots];
      run(command);
      if (command.payloadEnd) payloadHead_.store(command.payloadEnd, std::memory_order_release);
      command.release();
      head_.store(head + 1);
      if (roomWanted_.load()) settleRoom();
    } else if (underWay) {
      if (!spinWhile(waiting, 1)) sched_yield();  // the device works; its results are looked for again and again
    } else if (closing_.load()) {
      break;
    } else if (!spinWhile(waiting, spin)) {
      bed_.sleepWhile(waiting);
    }
  }
  backend_->end();
  if (closing_.load() && !stopping_.load()) settle(finishToken_, nullptr, nullptr);
}

/// Settles what has come to pass; a device that failed meanwhile is lost, since nothing says what of the work under way was done.
bool Device::poll() {
  try {
    return backend_->poll();
  } catch (const std::exception& error) {
    fail("work under way", error, true);
    return false;
  }
}

void Device::run(Command& command) {
  const bool settles = command.kind == CommandKind::read || command.kind == CommandKind::done;
  const bool works = command.kind == CommandKind::op || command.kind == CommandKind::replay || command.kind == CommandKind::prepare;
  if (dropped(command) && settles) return settle(command.token, command.into, fault_);
  if (dropped(command) && (works || lost_)) return;
  bool begun = false;  // whoever waits is the backend's to tell
  try {
    execute(command);
    begun = true;
    if (options_.sync) backend_->synchronise();
  } catch (const std::exception& error) {
    const std::string what = command.kind == CommandKind::op ? std::string("operation \"") + command.spec->name + "\"" : verb(command.kind);
    fail(what + " on queue " + std::to_string(command.queue), error);
    if (settles && !begun) settle(command.token, command.into, fault_);
  }
}

void Device::execute(Command& command) {
  switch (command.kind) {
    case CommandKind::op: return runOp(command, nullptr);
    case CommandKind::replay: return runGraph(command);
    case CommandKind::fill: return backend_->fill(command);
    case CommandKind::copy: return backend_->copy(command);
    case CommandKind::write: return backend_->write(command);
    case CommandKind::read: return backend_->read(command);
    case CommandKind::done: return backend_->done(command);
    case CommandKind::scratch: return backend_->scratch(command);
    case CommandKind::convert: return backend_->convert(command);
    case CommandKind::upload: return backend_->upload(command);
    case CommandKind::signal: return backend_->signal(command);
    case CommandKind::wait: return backend_->wait(command);
    case CommandKind::prepare:
      if (!options_.sync && !backend_->prepare(*command.graph)) eagerGraphs_.fetch_add(1);
      return;
  }
}

void Device::runOp(const Command& command, const Graph* graph) {
  try {
    if (!options_.faultOn.empty() && options_.faultOn == command.spec->name) throw Error("INTERNAL", "a fault was asked for");
    backend_->op(command);
    if (graph && options_.sync) backend_->synchronise();
  } catch (const std::exception& error) {
    if (!graph) throw;
    fail(std::string("operation \"") + command.spec->name + "\" of graph " + std::to_string(graph->number) + " on queue " +
             std::to_string(command.queue), error);
  }
}

/// As one piece where the backend can; with `sync` one by one, so that each operation is checked by itself.
void Device::runGraph(const Command& replay) {
  const Graph& graph = *replay.graph;
  if (!options_.sync && options_.faultOn.empty() && backend_->replay(replay)) return;
  for (const Command& command : graph.commands) {
    if (stopping_.load(std::memory_order_relaxed) || lost_) return;
    if (command.kind == CommandKind::signal) backend_->signal(command);
    else if (command.kind == CommandKind::wait) backend_->wait(command);
    else if (dropped(replay)) continue;  // the queues still join: what comes after the graph relies on that
    else if (command.kind == CommandKind::fill) backend_->fill(command);
    else if (command.kind == CommandKind::copy) backend_->copy(command);
    else runOp(command, &graph);
  }
}

void Device::fail(const std::string& what, const std::exception& error, bool forGood) {
  const bool lostBefore = lost_;
  const bool gpuLost = backend_->lost();
  lost_ = lost_ || forGood || gpuLost;
  // A recorded command has the wave of its recording; whatever is in the ring by now counts as enqueued before the fault is told.
  const uint64_t wave = ring_[head_.load(std::memory_order_relaxed) % kSlots].wave;
  const bool first = lost_ ? !lostBefore : !fault_ || fault_->wave < wave;
  if (first) {  // what fails because of a failure is not told
    const auto* own = dynamic_cast<const Error*>(&error);
    Fault fault;
    fault.code = own ? own->code() : dynamic_cast<const std::bad_alloc*>(&error) ? "OUT_OF_MEMORY" : "INTERNAL";
    fault.message = what + " failed: " + error.what();
    if (gpuLost) fault.message += ". The GPU is lost to this process: start a new one";
    fault.wave = wave;
    fault_ = std::make_shared<const Fault>(std::move(fault));
  }
  if (lost_) backend_->abandon(fault_);
}

void Device::settle(int token, ReadBuffer* read, std::shared_ptr<const Fault> fault) {
  const double ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count();
  bool first;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    first = completions_.empty();
    completions_.push_back({token, read, std::move(fault), ms});
  }
  if (first) notify_();
}

void Device::settleRoom() {
  std::vector<int> tokens;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (freeSlots() < (kSlots - kReserve) / 2) return;
    tokens.swap(roomTokens_);
    roomWanted_.store(false);
  }
  for (int token : tokens) settle(token, nullptr, nullptr);
}

}  // namespace longcat
