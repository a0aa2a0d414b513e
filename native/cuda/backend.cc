// The CUDA backend. Everything but allocation happens on the device's owner thread.
#include "cuda/backend.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "comm/communicator.h"
#include "cuda/arena.h"
#include "cuda/check.h"
#include "cuda/context.h"
#include "cuda/convert.h"
#include "cuda/events.h"
#include "cuda/graph_edges.h"
#include "cuda/pinned.h"
#include "cuda/trap.h"
#include "cuda/window.h"
#include "runtime/memory.h"
#include "runtime/processor.h"

namespace longcat {
namespace {

constexpr size_t kUploadRing = size_t{32} << 20;

/// Host memory that the GPU reads over the bus.
class HostBuffer final : public Buffer {
 public:
  HostBuffer(std::byte* data, size_t bytes, std::shared_ptr<std::atomic<int64_t>> counter) : Buffer(data, bytes), counter_(std::move(counter)) {
    counter_->fetch_add(static_cast<int64_t>(bytes));
  }
  ~HostBuffer() override {
    cudaFreeHost(data_);
    counter_->fetch_sub(static_cast<int64_t>(bytes_));
  }

 private:
  std::shared_ptr<std::atomic<int64_t>> counter_;
};

/// Graphs that nobody will replay any more; they are destroyed when nothing is under way.
struct Retired {
  std::mutex mutex;
  std::vector<cudaGraphExec_t> graphs;
  ~Retired() { destroy(); }
  void destroy() {
    for (cudaGraphExec_t graph : graphs) cudaGraphExecDestroy(graph);
    graphs.clear();
  }
};

/// What a Graph keeps of its capture.
struct Captured {
  cudaGraphExec_t graph;
  std::shared_ptr<Retired> retired;
  Captured(cudaGraphExec_t executable, std::shared_ptr<Retired> to) : graph(executable), retired(std::move(to)) {}
  Captured(const Captured&) = delete;
  Captured& operator=(const Captured&) = delete;
  ~Captured() {
    const std::lock_guard<std::mutex> lock(retired->mutex);
    retired->graphs.push_back(graph);
  }
};

class CudaBackend final : public Backend {
 public:
  CudaBackend(const CudaBackendOptions& options, std::shared_ptr<std::atomic<int64_t>> counter)
      : gpu_(options.gpu), poison_(options.poison), trapOn_(options.trapOn), counter_(std::move(counter)) {
    LONGCAT_CUDA(cudaSetDevice(gpu_));
    cudaDeviceProp properties{};
    LONGCAT_CUDA(cudaGetDeviceProperties(&properties, gpu_));
    context_.useCard(properties);
    context_.fp8Activations = options.fp8Activations;
    context_.batchInvariant = options.batchInvariant;
    arena_ = std::make_shared<Arena>(gpu_, counter_);
  }

  bool onGpu() const override { return true; }
  std::shared_ptr<Buffer> allocate(size_t bytes, const char* purpose) override { return arena_->allocate(bytes, purpose); }
  std::shared_ptr<Buffer> allocateHost(size_t bytes, const char* purpose) override;
  bool zeroesMemory() const override { return false; }
  void reserve(size_t bytes) override { arena_->reserve(bytes); }
  int64_t freeBytes() const override { return arena_->freeBytes(); }
  void useCommunicator(std::shared_ptr<Communicator> communicator) override;
  std::shared_ptr<Buffer> createWindow(size_t bytes, WindowHandle& handle) override { return createGpuWindow(gpu_, bytes, counter_, handle); }
  std::shared_ptr<Buffer> openWindow(const WindowHandle& handle) override { return openGpuWindow(gpu_, handle); }

  void start(Settle settle) override;
  void end() override;
  void op(const Command& command) override;
  void fill(const Command& command) override { fillTensor(command.target, command.byteValue, stream(command.queue)); }
  void copy(const Command& command) override;
  void write(const Command& command) override;
  void read(const Command& command) override;
  void done(const Command& command) override { follow(command, {}, nullptr); }
  void convert(const Command& command) override;
  void upload(const Command& command) override;
  void signal(const Command& command) override { LONGCAT_CUDA(cudaEventRecord(event(command.token), stream(command.queue))); }
  void wait(const Command& command) override { LONGCAT_CUDA(cudaStreamWaitEvent(stream(command.queue), event(command.token), 0)); }
  void scratch(const Command&) override {}
  bool prepare(const Graph& graph) override;
  bool replay(const Command& command) override;
  bool poll() override;
  void synchronise() override;
  bool lost() override;
  void abandon(const std::shared_ptr<const Fault>& fault) override;

 private:
  /// A read or done that is under way.
  struct Pending {
    cudaEvent_t event;
    int token;
    ReadBuffer* into;
    size_t bytes;
    ReadPool::Block block;
  };

  cudaStream_t stream(int queue);
  cudaEvent_t event(int number);
  void follow(const Command& command, ReadPool::Block block, ReadBuffer* into);
  void settleOldest(std::shared_ptr<const Fault> fault);
  void enqueueAll(const Graph& graph);
  void destroyRetired();
  static void fillTensor(const Tensor& tensor, int byte, cudaStream_t stream);

  int gpu_;
  bool poison_;
  std::string trapOn_;
  std::shared_ptr<std::atomic<int64_t>> counter_;
  std::shared_ptr<Arena> arena_;
  CudaContext context_;
  std::shared_ptr<Communicator> communicator_;
  std::atomic<Communicator*> joined_{nullptr};  // communicator_, as the owner thread sees it
  Settle settle_;
  cudaStream_t streams_[kMaxQueues] = {};
  cudaEvent_t events_[kMaxEvents] = {};
  std::unique_ptr<UploadRing> uploads_;
  std::unique_ptr<ReadPool> reads_;
  std::deque<Pending> pending_;
  EventPool passed_;  // of pending_
  std::shared_ptr<Retired> retired_ = std::make_shared<Retired>();
  std::string lastOp_ = "none yet";
};

std::shared_ptr<Buffer> CudaBackend::allocateHost(size_t bytes, const char* purpose) {
  LONGCAT_CUDA(cudaSetDevice(gpu_));
  void* data = nullptr;
  const cudaError_t error = cudaHostAlloc(&data, std::max<size_t>(bytes, 1), cudaHostAllocMapped | cudaHostAllocPortable);
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    throw outOfMemoryError(bytes, (std::string(purpose) + " in pinned host memory").c_str(), availableMemory());
  }
  LONGCAT_CUDA(error);
  return std::make_shared<HostBuffer>(static_cast<std::byte*>(data), bytes, counter_);
}

/// Once: a graph may have been captured with the first.
void CudaBackend::useCommunicator(std::shared_ptr<Communicator> communicator) {
  require(!communicator_, "this device has joined other ranks already");
  communicator_ = std::move(communicator);
  joined_.store(communicator_.get());
}

void CudaBackend::start(Settle settle) {
  settle_ = std::move(settle);
  LONGCAT_CUDA(cudaSetDevice(gpu_));
  uploads_ = std::make_unique<UploadRing>(kUploadRing);
  reads_ = std::make_unique<ReadPool>();
}

void CudaBackend::end() {
  try {
    synchronise();
    while (!pending_.empty()) settleOldest(nullptr);
  } catch (const Error& error) {
    abandon(std::make_shared<const Fault>(Fault{error.code(), std::string("the end of the work under way failed: ") + error.what()}));
  }
  {
    const std::lock_guard<std::mutex> lock(retired_->mutex);
    retired_->destroy();
  }
  for (cudaEvent_t& event : events_) {
    if (event) cudaEventDestroy(std::exchange(event, nullptr));
  }
  uploads_.reset();
  reads_.reset();
  for (cudaStream_t& stream : streams_) {
    if (stream) cudaStreamDestroy(std::exchange(stream, nullptr));
  }
}

cudaStream_t CudaBackend::stream(int queue) {
  cudaStream_t& stream = streams_[queue];
  if (!stream) LONGCAT_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return stream;
}

cudaEvent_t CudaBackend::event(int number) {
  cudaEvent_t& event = events_[number];
  if (!event) LONGCAT_CUDA(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  return event;
}

void CudaBackend::op(const Command& command) {
  context_.stream = stream(command.queue);
  context_.communicator = joined_.load();
  lastOp_ = command.spec->name;
  if (poison_) {
    for (const Tensor& tensor : command.poisoned) fillTensor(tensor, 0xff, context_.stream);
  }
  if (trapOn_ == command.spec->name) cuda::launchTrap(context_);
  else command.spec->cuda(command.params, context_);
}

void CudaBackend::fillTensor(const Tensor& tensor, int byte, cudaStream_t stream) {
  if (tensor.parts || tensor.elements() == 0) return;
  const size_t size = bytesOf(tensor.dtype);
  if (tensor.contiguous()) {
    LONGCAT_CUDA(cudaMemsetAsync(tensor.data, byte, static_cast<size_t>(tensor.elements()) * size, stream));
    return;
  }
  const size_t row = static_cast<size_t>(tensor.elements() / tensor.shape[0]) * size;
  LONGCAT_CUDA(cudaMemset2DAsync(tensor.data, static_cast<size_t>(tensor.rowStride) * size, byte, row, static_cast<size_t>(tensor.shape[0]), stream));
}

void CudaBackend::copy(const Command& command) {
  if (command.bytes == 0) return;
  LONGCAT_CUDA(cudaMemcpyAsync(command.target.data + command.targetByte, command.source.data + command.sourceByte, command.bytes,
                               cudaMemcpyDefault, stream(command.queue)));
}

void CudaBackend::write(const Command& command) {
  for (size_t at = 0; at < command.bytes; at += uploads_->largest()) {
    const size_t bytes = std::min(uploads_->largest(), command.bytes - at);
    uploads_->send(stream(command.queue), command.target.data + command.targetByte + at, command.payload + at, bytes);
  }
}

void CudaBackend::upload(const Command& command) {
  const size_t bytes = spanBytes(command.source);
  if (command.byteValue) {  // to the host's own memory
    std::memcpy(command.target.data, command.source.data, bytes);
    return;
  }
  for (size_t at = 0; at < bytes; at += uploads_->largest()) {
    uploads_->send(stream(command.queue), command.target.data + at, command.source.data + at, std::min(uploads_->largest(), bytes - at));
  }
}

void CudaBackend::read(const Command& command) {
  const ReadPool::Block block = reads_->take(command.bytes);
  try {
    if (command.bytes > 0)
      LONGCAT_CUDA(cudaMemcpyAsync(block.data, command.source.data + command.sourceByte, command.bytes, cudaMemcpyDefault, stream(command.queue)));
    follow(command, block, command.into);
  } catch (...) {
    cudaStreamSynchronize(stream(command.queue));  // the copy may be under way
    reads_->giveBack(block);
    throw;
  }
}

/// Settles the command's token once its queue has come this far.
void CudaBackend::follow(const Command& command, ReadPool::Block block, ReadBuffer* into) {
  pending_.push_back({passed_.record(stream(command.queue)), command.token, into, command.bytes, block});
}

void CudaBackend::settleOldest(std::shared_ptr<const Fault> fault) {
  const Pending pending = pending_.front();
  pending_.pop_front();
  if (pending.into && !fault) std::memcpy(pending.into->data(), pending.block.data, pending.bytes);
  if (pending.block.data) reads_->giveBack(pending.block);
  passed_.giveBack(pending.event);
  settle_(pending.token, pending.into, std::move(fault));
}

bool CudaBackend::poll() {
  while (!pending_.empty()) {
    const cudaError_t state = answerOf(cudaEventQuery(pending_.front().event));
    if (state == cudaErrorNotReady) return true;
    if (state != cudaSuccess) {
      const std::string what = "the last operation that was launched is \"" + lastOp_ + "\" (debug: \"sync\" finds the one that failed); noticed";
      throwCuda(state, what.c_str(), __FILE__, __LINE__);
    }
    settleOldest(nullptr);
  }
  destroyRetired();
  return false;
}

void CudaBackend::synchronise() {
  for (cudaStream_t stream : streams_) {
    if (stream) LONGCAT_CUDA(cudaStreamSynchronize(stream));
  }
}

void CudaBackend::convert(const Command& command) {
  context_.stream = stream(command.queue);
  lastOp_ = "conversion";
  const Tensor& from = command.source;
  const Tensor& scale = command.scale;
  // Blocks of scales are those of a matrix: matrices in a row are converted one by one.
  const int64_t count = from.rank == 3 ? from.shape[0] : 1, columns = from.shape[from.rank - 1];
  const int64_t rows = count && columns ? from.elements() / count / columns : 0;
  for (int64_t i = 0; i < count; ++i) {
    const auto part = [i, count](const Tensor& all) { return all.data + static_cast<size_t>(i * (all.elements() / count)) * bytesOf(all.dtype); };
    const auto* scales = scale.buffer ? reinterpret_cast<const float*>(part(scale)) : nullptr;
    cuda::convertOnDevice(context_, part(from), from.dtype, scales, rows, columns, part(command.target), command.target.dtype);
  }
}

void CudaBackend::enqueueAll(const Graph& graph) {
  for (const Command& command : graph.commands) {
    switch (command.kind) {
      case CommandKind::op: op(command); break;
      case CommandKind::fill: fill(command); break;
      case CommandKind::copy: copy(command); break;
      case CommandKind::signal: signal(command); break;
      default: wait(command);
    }
  }
}

/// Captures a recording: queue 0's stream and all that branch off it and come back.
bool CudaBackend::prepare(const Graph& graph) {
  LONGCAT_CUDA(cudaStreamBeginCapture(stream(0), cudaStreamCaptureModeThreadLocal));
  cudaGraph_t captured = nullptr;
  try {
    enqueueAll(graph);
  } catch (...) {
    cudaStreamEndCapture(stream(0), &captured);
    if (captured) cudaGraphDestroy(captured);
    cudaGetLastError();
    throw;
  }
  LONGCAT_CUDA(cudaStreamEndCapture(stream(0), &captured));
  const std::unique_ptr<CUgraph_st, decltype(&cudaGraphDestroy)> nodes(captured, cudaGraphDestroy);
  removeImpliedEdges(captured);
  cudaGraphExec_t executable = nullptr;
  cudaError_t error = cudaGraphInstantiate(&executable, captured, 0);
  if (error == cudaSuccess) {
    auto prepared = std::make_shared<Captured>(executable, retired_);
    error = cudaGraphUpload(executable, stream(0));
    if (error == cudaSuccess) graph.prepared = std::move(prepared);
  }
  if (error == cudaErrorMemoryAllocation) {  // its commands are then run one by one: slower, and the same numbers
    cudaGetLastError();
    return false;
  }
  LONGCAT_CUDA(error);
  return true;
}

bool CudaBackend::replay(const Command& command) {
  const auto* captured = static_cast<const Captured*>(command.graph->prepared.get());
  if (!captured) return false;
  lastOp_ = "graph " + std::to_string(command.graph->number);
  LONGCAT_CUDA(cudaGraphLaunch(captured->graph, stream(command.queue)));
  return true;
}

/// Once no stream can be running one of them.
void CudaBackend::destroyRetired() {
  const std::lock_guard<std::mutex> lock(retired_->mutex);
  if (retired_->graphs.empty()) return;
  for (cudaStream_t stream : streams_) {
    if (stream && answerOf(cudaStreamQuery(stream)) != cudaSuccess) return;
  }
  retired_->destroy();
}

bool CudaBackend::lost() {
  cudaGetLastError();
  for (cudaStream_t stream : streams_) {
    const cudaError_t state = stream ? answerOf(cudaStreamQuery(stream)) : cudaSuccess;
    if (state != cudaSuccess && state != cudaErrorNotReady) return true;
  }
  return false;
}

void CudaBackend::abandon(const std::shared_ptr<const Fault>& fault) {
  while (!pending_.empty()) settleOldest(fault);
}

}  // namespace

std::unique_ptr<Backend> makeCudaBackend(const CudaBackendOptions& options, std::shared_ptr<std::atomic<int64_t>> counter) {
  return std::make_unique<CudaBackend>(options, std::move(counter));
}

}  // namespace longcat
