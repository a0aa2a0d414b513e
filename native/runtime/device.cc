// The device's ring and its owner thread.
#include "runtime/device.h"

#include <sched.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <string>
#include <utility>

#include "ops/registry.h"
#include "runtime/convert.h"
#include "runtime/error.h"
#include "runtime/memory.h"
#include "runtime/processor.h"
#include "runtime/start_thread.h"

namespace longcat {
namespace {

constexpr int kOwnerSpinMicroseconds = 30;

void checkRange(const Tensor& tensor, size_t byteOffset, size_t bytes, const char* what) {
  require(!tensor.parts, std::string(what) + ": a stack has no bytes of its own");
  const size_t there = spanBytes(tensor);
  require(byteOffset <= there && bytes <= there - byteOffset, std::string(what) + ": bytes " + std::to_string(byteOffset) + " to " +
              std::to_string(byteOffset + bytes) + " of a tensor of " + std::to_string(there) + " bytes");
}

void retain(Command& command, const Tensor& tensor) {
  if (tensor.buffer) command.retained.push_back(tensor.buffer);
  if (tensor.parts) command.retained.push_back(tensor.parts);
}

/// The operation's own checks, with its name in front of what they say.
void prepare(const OpSpec& spec, const OpArgs& args, void* params) {
  try {
    spec.prepare(args, params);
  } catch (const Error& error) {
    const std::string words = error.what();
    if (words.rfind(spec.name, 0) == 0) throw;
    throw Error(error.code(), std::string(spec.name) + ": " + words);
  }
}

const char* verb(CommandKind kind) {
  switch (kind) {
    case CommandKind::fill: return "fill";
    case CommandKind::copy: return "copy";
    case CommandKind::write: return "write";
    case CommandKind::read: return "read";
    case CommandKind::convert: return "conversion";
    default: return "command";
  }
}

}  // namespace

Device::Device(DeviceOptions options, std::function<void()> notify)
    : options_(std::move(options)), notify_(std::move(notify)), ring_(kSlots),
      params_(allocateBuffer(kSlots * kMaxParamBytes, "the command ring")), payload_(allocateBuffer(kPayloadBytes, "the command ring")) {
  for (int i = 0; i < kSlots; ++i) ring_[i].params = params_->data() + static_cast<size_t>(i) * kMaxParamBytes;
  // The owner thread looks at nothing but the empty ring until the first command: the pool is there by then.
  owner_ = startThread([this] { own(); }, 0, options_.threads);
  try {
    pool_ = std::make_unique<ThreadPool>(options_.threads);
  } catch (...) {
    stop();
    throw;
  }
}

Device::~Device() { stop(); }

// ---- JavaScript's thread ------------------------------------------------------------------------------------------------

int Device::freeSlots() const {
  // Sequentially consistent: room() looks here after it has said that it waits; own() moves head_ before it looks who waits.
  return std::max(0, kSlots - kReserve - static_cast<int>(tail_.load(std::memory_order_relaxed) - head_.load()));
}

/// The next free slot, not yet visible to the owner thread; null if the ring is full.
Command* Device::claim(CommandKind kind, int queue, bool fromReserve) {
  const uint64_t tail = tail_.load(std::memory_order_relaxed);
  const uint64_t used = tail - head_.load(std::memory_order_acquire);
  if (used >= static_cast<uint64_t>(fromReserve ? kSlots : kSlots - kReserve)) return nullptr;
  Command& command = ring_[tail % kSlots];
  command.kind = kind;
  command.queue = queue;
  command.wave = wave_;
  command.payloadEnd = 0;
  return &command;
}

/// Hands the claimed slot over. Always true, for `return publish()`.
bool Device::publish() {
  const uint64_t tail = tail_.load(std::memory_order_relaxed) + 1;
  tail_.store(tail);
  bed_.wake();
  if (options_.sync) {
    while (head_.load(std::memory_order_acquire) < tail && !stopping_.load()) sched_yield();
    throwFault();
  }
  return true;
}

void Device::throwFault() {
  if (!fault_ || fault_->wave < wave_) return;
  telling(*fault_);
  throw Error(fault_->code, fault_->message);
}

void Device::telling(const Fault& fault) { wave_ = std::max(wave_, fault.wave + 1); }

bool Device::enqueue(int queue, const OpSpec& spec, const OpArgs& args) {
  checkArity(spec, args);
  Command* command = claim(CommandKind::op, queue, false);
  if (!command) return false;
  command->spec = &spec;
  prepare(spec, args, command->params);
  growScratch(spec.threadScratch ? spec.threadScratch(command->params) : 0);
  // growScratch may have taken the slot for itself; the parameters then move on to the next.
  if (ring_[tail_.load(std::memory_order_relaxed) % kSlots].params != command->params) {
    Command* next = claim(CommandKind::op, queue, true);
    if (!next) return false;
    next->spec = &spec;
    prepare(spec, args, next->params);
    command = next;
  }
  for (int i = 0; i < args.numTensors; ++i) {
    if (!args.tensor[i]) continue;
    retain(*command, *args.tensor[i]);
    if (options_.poison && tensorArg(spec, i).use == Use::out && !readsInto(spec, args, i)) command->poisoned.push_back(*args.tensor[i]);
  }
  if (graph_) record(*command);
  return publish();
}

/// Sees to it that each thread has so much scratch by the time that the next command runs. Never shrinks.
void Device::growScratch(size_t threadBytes) {
  if (threadBytes <= scratchAsked_) return;
  const size_t rounded = (threadBytes + 4095) / 4096 * 4096;
  auto scratch = allocateBuffer(rounded * static_cast<size_t>(options_.threads), "scratch", allocated_);
  // The slot that the caller has claimed is still unpublished: this command takes it.
  Command* command = claim(CommandKind::scratch, 0, true);
  require(command, "the command ring is full");
  command->scratch = std::move(scratch);
  command->bytes = rounded;
  scratchAsked_ = rounded;
  publish();
}

void Device::record(const Command& command) {
  auto params = allocateBuffer(kMaxParamBytes, "a graph", allocated_);
  if (command.kind == CommandKind::op) std::memcpy(params->data(), command.params, kMaxParamBytes);
  graph_->commands.push_back(command);
  graph_->commands.back().params = params->data();
  graph_->params.push_back(std::move(params));
}

bool Device::fill(int queue, const Tensor& tensor, int byte) {
  require(!tensor.parts, "fill: a stack has no bytes of its own");
  Command* command = claim(CommandKind::fill, queue, false);
  if (!command) return false;
  command->target = tensor;
  command->byteValue = byte;
  if (graph_) record(*command);
  return publish();
}

bool Device::copy(int queue, const Tensor& from, size_t fromByte, const Tensor& to, size_t toByte, size_t bytes) {
  checkRange(from, fromByte, bytes, "copy, source");
  checkRange(to, toByte, bytes, "copy, target");
  Command* command = claim(CommandKind::copy, queue, false);
  if (!command) return false;
  command->source = from;
  command->sourceByte = fromByte;
  command->target = to;
  command->targetByte = toByte;
  command->bytes = bytes;
  if (graph_) record(*command);
  return publish();
}

/// Copies what is to be written into the payload ring, or into memory of its own where that has no room.
void Device::place(Command& command, const void* data, size_t bytes) {
  command.bytes = bytes;
  if (bytes <= kLargePayload) {
    uint64_t start = payloadTail_;
    if (start % kPayloadBytes + bytes > kPayloadBytes) start += kPayloadBytes - start % kPayloadBytes;
    if (start + bytes - payloadHead_.load(std::memory_order_acquire) <= kPayloadBytes) {
      std::byte* at = payload_->data() + start % kPayloadBytes;
      std::memcpy(at, data, bytes);
      command.payload = at;
      payloadTail_ = command.payloadEnd = start + bytes;
      return;
    }
  }
  command.ownPayload = allocateBuffer(bytes, "a write");
  std::memcpy(command.ownPayload->data(), data, bytes);
  command.payload = command.ownPayload->data();
}

bool Device::write(int queue, const Tensor& tensor, size_t byteOffset, const void* data, size_t bytes) {
  checkRange(tensor, byteOffset, bytes, "write");
  if (bytes == 0) return true;
  Command* command = claim(CommandKind::write, queue, false);
  if (!command) return false;
  place(*command, data, bytes);
  command->target = tensor;
  command->targetByte = byteOffset;
  return publish();
}

bool Device::read(int queue, const Tensor& tensor, size_t byteOffset, size_t bytes, int token) {
  checkRange(tensor, byteOffset, bytes, "read");
  Command* command = claim(CommandKind::read, queue, true);
  if (!command) return false;
  if (freeReadBuffers_.empty()) {
    readBuffers_.push_back(std::make_unique<ReadBuffer>());
    freeReadBuffers_.push_back(readBuffers_.back().get());
  }
  freeReadBuffers_.back()->resize(bytes);
  command->into = freeReadBuffers_.back();
  freeReadBuffers_.pop_back();
  command->source = tensor;
  command->sourceByte = byteOffset;
  command->bytes = bytes;
  command->token = token;
  return publish();
}

void Device::recycle(ReadBuffer* buffer) {
  if (buffer->capacity() > kLargePayload) ReadBuffer().swap(*buffer);
  freeReadBuffers_.push_back(buffer);
}

bool Device::done(int queue, int token) {
  Command* command = claim(CommandKind::done, queue, true);
  if (!command) return false;
  command->token = token;
  return publish();
}

bool Device::room(int token) {
  const std::lock_guard<std::mutex> lock(mutex_);
  roomWanted_.store(true);
  if (freeSlots() >= (kSlots - kReserve) / 2) {
    if (roomTokens_.empty()) roomWanted_.store(false);
    return true;
  }
  roomTokens_.push_back(token);
  return false;
}

Tensor Device::convert(const Tensor& from, const Tensor* scale, DType dtype) {
  Tensor to = convertedLike(from, scale, dtype, allocated_);
  Command* command = nullptr;
  while (!(command = claim(CommandKind::convert, 0, false))) {
    require(!stopping_.load(), "the device is stopped");
    sched_yield();
  }
  command->source = from;
  command->target = to;
  if (scale) command->scale = *scale;
  publish();
  return to;
}

void Device::beginRecord() {
  require(!graph_, "a recording has begun already");
  graph_ = std::make_unique<Graph>();
  graph_->number = ++numGraphs_;
}

std::shared_ptr<const Graph> Device::endRecord() {
  require(graph_ != nullptr, "no recording has begun");
  return std::shared_ptr<const Graph>(std::move(graph_));
}

bool Device::replay(int queue, std::shared_ptr<const Graph> graph) {
  require(!graph_, "a graph cannot be replayed within a recording");
  Command* command = claim(CommandKind::replay, queue, false);
  if (!command) return false;
  command->graph = std::move(graph);
  return publish();
}

const std::vector<Completion>& Device::takeCompletions() {
  taken_.clear();
  const std::lock_guard<std::mutex> lock(mutex_);
  taken_.swap(completions_);
  return taken_;
}

void Device::finish(int token) {
  finishToken_ = token;
  closing_.store(true);
  bed_.wake();
}

void Device::stop() {
  stopping_.store(true);
  bed_.wake();
  if (owner_.joinable()) owner_.join();
}

// ---- The owner thread ---------------------------------------------------------------------------------------------------

void Device::own() {
  const int spin = options_.threads > availableThreads() ? 2 : kOwnerSpinMicroseconds;
  const auto waiting = [this] { return idle(); };
  while (!stopping_.load()) {
    const uint64_t head = head_.load(std::memory_order_relaxed);
    if (head != tail_.load(std::memory_order_acquire)) {
      Command& command = ring_[head % kSlots];
      execute(command);
      if (command.payloadEnd) payloadHead_.store(command.payloadEnd, std::memory_order_release);
      command.release();
      head_.store(head + 1);
      if (roomWanted_.load()) settleRoom();
    } else if (closing_.load()) {
      break;
    } else if (!spinWhile(waiting, spin)) {
      bed_.sleepWhile(waiting);
    }
  }
  pool_.reset();
  if (closing_.load() && !stopping_.load()) settle(finishToken_, nullptr, nullptr);
}

void Device::execute(Command& command) {
  try {
    switch (command.kind) {
      case CommandKind::op:
        if (!dropped(command)) runOp(command, nullptr);
        break;
      case CommandKind::replay:
        if (!dropped(command)) runGraph(command);
        break;
      case CommandKind::fill: fillBytes(command.target, command.byteValue); break;
      case CommandKind::copy:
        std::memmove(command.target.data + command.targetByte, command.source.data + command.sourceByte, command.bytes);
        break;
      case CommandKind::write: std::memcpy(command.target.data + command.targetByte, command.payload, command.bytes); break;
      case CommandKind::read:
        std::memcpy(command.into->data(), command.source.data + command.sourceByte, command.bytes);
        settle(command.token, command.into, dropped(command) ? fault_ : nullptr);
        break;
      case CommandKind::done: settle(command.token, nullptr, dropped(command) ? fault_ : nullptr); break;
      case CommandKind::scratch:
        scratch_ = command.scratch;
        scratchBytes_ = command.bytes;
        break;
      case CommandKind::convert:
        convertInto(command.source, command.scale.buffer || command.scale.parts ? &command.scale : nullptr, command.target, *pool_);
        break;
    }
  } catch (const std::exception& error) {
    fail(command, verb(command.kind), nullptr, error);
  }
}

void Device::runOp(const Command& command, const Graph* graph) {
  try {
    if (!options_.faultOn.empty() && options_.faultOn == command.spec->name) throw Error("INTERNAL", "a fault was asked for");
    if (options_.poison) {
      for (const Tensor& tensor : command.poisoned) fillBytes(tensor, 0xff);
      if (scratch_) std::memset(scratch_->data(), 0xff, scratch_->bytes());
    }
    const CpuContext context{*pool_, scratch_ ? scratch_->data() : nullptr, scratchBytes_};
    command.spec->cpu[static_cast<int>(options_.isa)](command.params, context);
  } catch (const std::exception& error) {
    fail(command, std::string("operation \"") + command.spec->name + "\"", graph, error);
  }
}

void Device::runGraph(const Command& replay) {
  const Graph& graph = *replay.graph;
  for (const Command& command : graph.commands) {
    if (stopping_.load(std::memory_order_relaxed) || dropped(replay)) return;
    switch (command.kind) {
      case CommandKind::op: runOp(command, &graph); break;
      case CommandKind::fill: fillBytes(command.target, command.byteValue); break;
      default: std::memmove(command.target.data + command.targetByte, command.source.data + command.sourceByte, command.bytes);
    }
  }
}

void Device::fail(const Command& command, const std::string& what, const Graph* graph, const std::exception& error) {
  const auto* own = dynamic_cast<const Error*>(&error);
  Fault fault;
  fault.code = own ? own->code() : dynamic_cast<const std::bad_alloc*>(&error) ? "OUT_OF_MEMORY" : "INTERNAL";
  fault.message = what + (graph ? " of graph " + std::to_string(graph->number) : "") + " on queue " + std::to_string(command.queue) +
                  " failed: " + error.what();
  // A recorded command has the wave of its recording; whatever is in the ring by now counts as enqueued before the fault is told.
  fault.wave = ring_[head_.load(std::memory_order_relaxed) % kSlots].wave;
  fault_ = std::make_shared<const Fault>(std::move(fault));
}

void Device::settle(int token, ReadBuffer* read, std::shared_ptr<const Fault> fault) {
  bool first;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    first = completions_.empty();
    completions_.push_back({token, read, std::move(fault)});
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
