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
#include "runtime/cpu_backend.h"
#include "runtime/error.h"
#include "runtime/memory.h"
#include "runtime/processor.h"
#include "runtime/start_thread.h"
#ifdef LONGCAT_HAS_CUDA
#include "cuda/backend.h"
#endif

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

std::unique_ptr<Backend> makeBackend(const DeviceOptions& options, const std::shared_ptr<std::atomic<int64_t>>& counter) {
  if (options.gpu < 0) return std::make_unique<CpuBackend>(options.threads, options.isa, options.poison, counter);
#ifdef LONGCAT_HAS_CUDA
  return makeCudaBackend({options.gpu, options.poison, options.fp8Activations, options.trapOn}, counter);
#else
  throw Error("DEVICE_UNAVAILABLE", "this build has no CUDA backend");
#endif
}

}  // namespace

Device::Device(DeviceOptions options, std::function<void()> notify)
    : options_(std::move(options)), notify_(std::move(notify)), ring_(kSlots),
      params_(allocateBuffer(kSlots * kMaxParamBytes, "the command ring")), payload_(allocateBuffer(kPayloadBytes, "the command ring")) {
  for (int i = 0; i < kSlots; ++i) ring_[i].params = params_->data() + static_cast<size_t>(i) * kMaxParamBytes;
  backend_ = makeBackend(options_, allocated_);
  owner_ = startThread([this] { own(); }, 0, options_.threads);
  try {
    backend_->startThreads();
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

/// Hands the claimed slot over. Always true, for `return publish()`. `settles`: a promise tells what goes wrong.
bool Device::publish(bool settles) {
  const uint64_t tail = tail_.load(std::memory_order_relaxed) + 1;
  tail_.store(tail);
  bed_.wake();
  if (options_.sync) {
    while (head_.load(std::memory_order_acquire) < tail && !stopping_.load()) sched_yield();
    if (!settles) throwFault();
  }
  return true;
}

void Device::throwFault() {
  if (!fault_ || (fault_->wave < wave_ && !lost_)) return;
  telling(*fault_);
  throw Error(fault_->code, fault_->message);
}

void Device::telling(const Fault& fault) { wave_ = std::max(wave_, fault.wave + 1); }

bool Device::enqueue(int queue, const OpSpec& spec, const OpArgs& given) {
  checkArity(spec, given);
  OpArgs args = given;
  args.onGpu = onGpu();
  require(!args.onGpu || spec.cuda, std::string(spec.name) + " has no body for GPUs");
  Command* command = claim(CommandKind::op, queue, false);
  if (!command) return false;
  command->spec = &spec;
  prepare(spec, args, command->params);
  growScratch(spec.threadScratch && !args.onGpu ? spec.threadScratch(command->params) : 0);
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
  return publish(true);
}

void Device::recycle(ReadBuffer* buffer) {
  if (buffer->capacity() > kLargePayload) ReadBuffer().swap(*buffer);
  freeReadBuffers_.push_back(buffer);
}

bool Device::done(int queue, int token) {
  Command* command = claim(CommandKind::done, queue, true);
  if (!command) return false;
  command->token = token;
  return publish(true);
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

/// The next free slot, waiting for one.
Command* Device::claimWaiting(CommandKind kind) {
  Command* command = nullptr;
  while (!(command = claim(kind, 0, false))) {
    require(!stopping_.load(), "the device is stopped");
    sched_yield();
  }
  return command;
}

bool Device::signal(int queue, int event) { return mark(CommandKind::signal, queue, event); }
bool Device::wait(int queue, int event) { return mark(CommandKind::wait, queue, event); }

bool Device::mark(CommandKind kind, int queue, int event) {
  Command* command = claim(kind, queue, false);
  if (!command) return false;
  command->token = event;
  if (graph_) record(*command);
  return publish();
}

Tensor Device::allocate(DType dtype, const int64_t* shape, int rank, bool toHost) {
  Tensor tensor = denseTensor(dtype, shape, rank);
  tensor.buffer = toHost ? backend_->allocateHost(spanBytes(tensor), "a tensor") : backend_->allocate(spanBytes(tensor), "a tensor");
  tensor.data = tensor.buffer->data();
  if (!toHost && !backend_->zeroesMemory() && tensor.elements() > 0) {
    Command* command = claimWaiting(CommandKind::fill);
    command->target = tensor;
    command->byteValue = 0;
    publish();
  }
  return tensor;
}

Tensor Device::upload(const Tensor& from, bool toHost) {
  if (!onGpu()) return from;
  Tensor to = from;
  const size_t bytes = spanBytes(from);
  to.buffer = toHost ? backend_->allocateHost(bytes, "n-gram tables") : backend_->allocate(bytes, "weights");
  to.data = to.buffer->data();
  if (bytes == 0) return to;
  Command* command = claimWaiting(CommandKind::upload);
  command->source = from;
  command->target = to;
  command->byteValue = toHost;
  publish();
  return to;
}

void Device::listParts(Tensor& stack) {
  if (!onGpu()) return;
  Tensor list;
  const int64_t bytes = static_cast<int64_t>(stack.parts->size() * sizeof(std::byte*));
  list = allocate(DType::u8, &bytes, 1);
  Command* command = claimWaiting(CommandKind::write);
  place(*command, stack.parts->data(), static_cast<size_t>(bytes));
  command->target = list;
  command->targetByte = 0;
  publish();
  stack.buffer = list.buffer;
  stack.data = list.data;
}

Tensor Device::convert(const Tensor& from, const Tensor* scale, DType dtype) {
  requireConvertible(from, scale, dtype);
  require(!onGpu() || !from.parts, "a GPU converts matrices, not stacks");
  Tensor to = allocate(dtype, from.shape, from.rank);
  if (from.parts) splitParts(to);
  Command* command = claimWaiting(CommandKind::convert);
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
  std::shared_ptr<const Graph> graph(std::move(graph_));
  if (onGpu()) {
    Command* command = claimWaiting(CommandKind::prepare);
    command->graph = graph;
    publish();
  }
  return graph;
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
    case CommandKind::prepare: return backend_->prepare(*command.graph);
  }
}

void Device::runOp(const Command& command, const Graph* graph) {
  try {
    if (!options_.faultOn.empty() && options_.faultOn == command.spec->name) throw Error("INTERNAL", "a fault was asked for");
    backend_->op(command);
  } catch (const std::exception& error) {
    if (!graph) throw;
    fail(std::string("operation \"") + command.spec->name + "\" of graph " + std::to_string(graph->number) + " on queue " +
             std::to_string(command.queue), error);
  }
}

void Device::runGraph(const Command& replay) {
  const Graph& graph = *replay.graph;
  if (options_.faultOn.empty() && backend_->replay(replay)) return;
  for (const Command& command : graph.commands) {
    if (stopping_.load(std::memory_order_relaxed) || dropped(replay)) return;
    switch (command.kind) {
      case CommandKind::op: runOp(command, &graph); break;
      case CommandKind::fill: backend_->fill(command); break;
      case CommandKind::copy: backend_->copy(command); break;
      case CommandKind::signal: backend_->signal(command); break;
      default: backend_->wait(command);
    }
  }
}

void Device::fail(const std::string& what, const std::exception& error, bool forGood) {
  const bool lostBefore = lost_;
  lost_ = lost_ || forGood || backend_->lost();
  // A recorded command has the wave of its recording; whatever is in the ring by now counts as enqueued before the fault is told.
  const uint64_t wave = ring_[head_.load(std::memory_order_relaxed) % kSlots].wave;
  const bool first = lost_ ? !lostBefore : !fault_ || fault_->wave < wave;
  if (first) {  // what fails because of a failure is not told
    const auto* own = dynamic_cast<const Error*>(&error);
    Fault fault;
    fault.code = own ? own->code() : dynamic_cast<const std::bad_alloc*>(&error) ? "OUT_OF_MEMORY" : "INTERNAL";
    fault.message = what + " failed: " + error.what();
    if (lost_) fault.message += ". The GPU is lost to this process: start a new one";
    fault.wave = wave;
    fault_ = std::make_shared<const Fault>(std::move(fault));
  }
  if (lost_) backend_->abandon(fault_);
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
