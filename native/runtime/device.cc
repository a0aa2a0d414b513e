// The device as JavaScript's thread sees it: what is checked, recorded and put into the ring. device_owner.cc takes it out.
#include "runtime/device.h"

#include <sched.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "ops/registry.h"
#include "runtime/convert.h"
#include "runtime/cpu_backend.h"
#include "runtime/error.h"
#include "runtime/memory.h"
#include "runtime/start_thread.h"
#ifdef LONGCAT_HAS_CUDA
#include "cuda/backend.h"
#endif

namespace longcat {
namespace {

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

std::unique_ptr<Backend> makeBackend(const DeviceOptions& options, const std::shared_ptr<std::atomic<int64_t>>& counter) {
  if (options.gpu < 0) return std::make_unique<CpuBackend>(options.threads, options.isa, options.poison, counter);
#ifdef LONGCAT_HAS_CUDA
  return makeCudaBackend({options.gpu, options.poison, options.fp8Activations, options.batchInvariant, options.trapOn}, counter);
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
  giveUpWaiting();
  bed_.wake();
  if (owner_.joinable()) owner_.join();
}

}  // namespace longcat
