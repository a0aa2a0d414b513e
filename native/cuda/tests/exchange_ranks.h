// Ranks of an exchange on the GPUs that there are, for its tests and timings: in one process, rank r on GPU r mod GPUs, each with a stream, a window and
// programs of its own. With one GPU all ranks' kernels run beside one another there.
#pragma once

#include <cuda_runtime_api.h>

#include <chrono>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "comm/window.h"
#include "cuda/check.h"
#include "cuda/context.h"
#include "cuda/window.h"
#include "ops/op.h"
#include "ops/registry.h"
#include "runtime/error.h"

namespace longcat {

/// What the ranks have in common.
struct GpuExchange {
  int64_t ranks, windowTokens, width, topK, experts;
  DType activation = DType::bf16;
  bool fp8 = false;
  int64_t localExperts() const { return experts / ranks; }
  int64_t slots() const { return topK < localExperts() ? topK : localExperts(); }
  WindowLayout layout() const { return windowLayout({ranks, windowTokens, width, slots(), activation, fp8}); }
};

/// One rank's tensors, on its GPU, of a program of `capacity` rows.
struct GpuProgram {
  int64_t capacity = 0;
  Tensor h, ids, weights, identity, rows, received, sendSlot, expertStart, planRow, slotPlan, partial, out;
};

class GpuRank {
 public:
  GpuRank(const GpuExchange& sizes, int64_t rank, int gpu) : sizes(sizes), rank(rank), gpu(gpu) {
    select();
    cudaDeviceProp card{};
    LONGCAT_CUDA(cudaGetDeviceProperties(&card, gpu));
    context.useCard(card);
    LONGCAT_CUDA(cudaStreamCreateWithFlags(&context.stream, cudaStreamNonBlocking));
    own_ = createGpuWindow(gpu, sizes.layout().bytes, counter_, handle);
    window = tensorAt(own_->data(), DType::u8, {static_cast<int64_t>(own_->bytes())});
    epoch = tensor(DType::i64, {1});
    windows = tensor(DType::i64, {sizes.ranks});
    void* words = nullptr;
    LONGCAT_CUDA(cudaHostAlloc(&words, kControlWords * sizeof(int32_t), cudaHostAllocMapped | cudaHostAllocPortable));
    std::memset(words, 0, kControlWords * sizeof(int32_t));
    control = tensorAt(words, DType::i32, {kControlWords});
  }
  ~GpuRank() {
    cudaSetDevice(gpu);
    cudaStreamDestroy(context.stream);
    for (void* memory : memory_) cudaFree(memory);
    cudaFreeHost(control.data);
  }
  GpuRank(const GpuRank&) = delete;
  GpuRank& operator=(const GpuRank&) = delete;

  void select() const { LONGCAT_CUDA(cudaSetDevice(gpu)); }

  void join(const std::vector<WindowHandle>& handles) {
    std::vector<int64_t> addresses;
    for (int64_t r = 0; r < sizes.ranks; ++r) {
      if (r != rank) opened_.push_back(openGpuWindow(gpu, handles[static_cast<size_t>(r)]));
      addresses.push_back(reinterpret_cast<int64_t>(r == rank ? own_->data() : opened_.back()->data()));
    }
    write(windows, addresses.data());
  }

  /// Zeroed memory of this rank's GPU.
  Tensor tensor(DType dtype, std::initializer_list<int64_t> shape) {
    Tensor t = tensorAt(nullptr, dtype, shape);
    const size_t bytes = static_cast<size_t>(t.elements()) * bytesOf(dtype);
    void* data = nullptr;
    select();
    LONGCAT_CUDA(cudaMalloc(&data, bytes + 256));
    memory_.push_back(data);
    LONGCAT_CUDA(cudaMemset(data, 0, bytes));
    LONGCAT_CUDA(cudaDeviceSynchronize());
    t.data = static_cast<std::byte*>(data);
    return t;
  }
  static Tensor tensorAt(void* data, DType dtype, std::initializer_list<int64_t> shape) {
    Tensor t;
    t.dtype = dtype;
    t.data = static_cast<std::byte*>(data);
    for (int64_t n : shape) t.shape[t.rank++] = n;
    t.rowStride = t.rank > 1 ? t.elements() / std::max<int64_t>(1, t.shape[0]) : 1;
    return t;
  }

  GpuProgram program(int64_t capacity) {
    const GpuExchange& s = sizes;
    GpuProgram p;
    p.capacity = capacity;
    p.h = tensor(s.activation, {capacity, s.width});
    p.ids = tensor(DType::i32, {capacity, s.topK});
    p.weights = tensor(DType::f32, {capacity, s.topK});
    p.identity = tensor(DType::f32, {capacity});
    p.rows = tensor(DType::i32, {1});
    if (s.fp8) p.received = tensor(s.activation, {s.ranks * capacity, s.width});
    else p.received = tensorAt(own_->data() + s.layout().rows, s.activation, {s.ranks * s.windowTokens, s.width});
    p.sendSlot = tensor(DType::i32, {capacity, s.ranks});
    p.expertStart = tensor(DType::i32, {s.localExperts() + 1});
    p.planRow = tensor(DType::i32, {s.ranks * capacity * s.slots()});
    p.slotPlan = tensor(DType::i32, {s.ranks * capacity, s.slots()});
    p.partial = tensor(s.activation, {s.ranks * capacity * s.slots(), s.width});
    p.out = tensor(s.activation, {capacity, s.width});
    return p;
  }

  void write(const Tensor& to, const void* from) const {
    select();
    LONGCAT_CUDA(cudaMemcpyAsync(to.data, from, static_cast<size_t>(to.elements()) * bytesOf(to.dtype), cudaMemcpyHostToDevice, context.stream));
    LONGCAT_CUDA(cudaStreamSynchronize(context.stream));
  }
  template <class T>
  std::vector<T> read(const Tensor& from) const {
    std::vector<T> values(static_cast<size_t>(from.elements()) * bytesOf(from.dtype) / sizeof(T));
    select();
    LONGCAT_CUDA(cudaMemcpy(values.data(), from.data, values.size() * sizeof(T), cudaMemcpyDeviceToHost));
    return values;
  }
  void poison(const GpuProgram& p) const {
    select();
    for (const Tensor* t : {&p.sendSlot, &p.expertStart, &p.planRow, &p.slotPlan, &p.out}) {
      LONGCAT_CUDA(cudaMemsetAsync(t->data, 0xff, static_cast<size_t>(t->elements()) * bytesOf(t->dtype), context.stream));
    }
    if (sizes.fp8) LONGCAT_CUDA(cudaMemsetAsync(p.received.data, 0xff, static_cast<size_t>(p.received.elements()) * bytesOf(p.received.dtype), context.stream));
  }

  void dispatch(const GpuProgram& p) const {
    call("ep_dispatch", {&p.h, &p.ids, &p.weights, &p.rows, &windows, &window, &epoch, &control, &p.received, &p.sendSlot, &p.expertStart, &p.planRow, &p.slotPlan, nullptr, nullptr},
         {static_cast<double>(rank), static_cast<double>(sizes.experts), static_cast<double>(sizes.windowTokens), sizes.fp8 ? 1.0 : 0.0});
  }
  void combine(const GpuProgram& p) const {
    call("ep_combine", {&p.partial, &p.slotPlan, &p.h, &p.identity, &p.sendSlot, &p.rows, &windows, &window, &epoch, &control, &p.out, nullptr, nullptr},
         {static_cast<double>(rank), static_cast<double>(sizes.windowTokens), sizes.fp8 ? 1.0 : 0.0});
  }

  /// What `enqueue` launches, as a graph.
  template <class F>
  cudaGraphExec_t capture(const F& enqueue) const {
    select();
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t executable = nullptr;
    LONGCAT_CUDA(cudaStreamBeginCapture(context.stream, cudaStreamCaptureModeThreadLocal));
    enqueue();
    LONGCAT_CUDA(cudaStreamEndCapture(context.stream, &graph));
    LONGCAT_CUDA(cudaGraphInstantiate(&executable, graph, 0));
    LONGCAT_CUDA(cudaGraphDestroy(graph));
    LONGCAT_CUDA(cudaGraphUpload(executable, context.stream));
    LONGCAT_CUDA(cudaStreamSynchronize(context.stream));
    return executable;
  }
  void replay(cudaGraphExec_t graph) const {
    select();
    LONGCAT_CUDA(cudaGraphLaunch(graph, context.stream));
  }

  volatile int32_t& word(int64_t index) const { return reinterpret_cast<int32_t*>(control.data)[index]; }

  const GpuExchange sizes;
  const int64_t rank;
  const int gpu;
  CudaContext context;
  WindowHandle handle;
  Tensor window, windows, epoch, control;

 private:
  void call(const char* name, std::initializer_list<const Tensor*> tensors, std::initializer_list<double> scalars) const {
    OpArgs arguments;
    arguments.onGpu = true;
    for (const Tensor* t : tensors) arguments.tensor[arguments.numTensors++] = t;
    for (double s : scalars) arguments.scalar[arguments.numScalars++] = s;
    const OpSpec* spec = findOp(name);
    alignas(64) std::byte params[kMaxParamBytes];
    spec->prepare(arguments, params);
    select();
    spec->cuda(params, context);
  }

  std::shared_ptr<std::atomic<int64_t>> counter_ = std::make_shared<std::atomic<int64_t>>(0);
  std::shared_ptr<Buffer> own_;
  std::vector<std::shared_ptr<Buffer>> opened_;
  std::vector<void*> memory_;
};

class GpuRanks {
 public:
  explicit GpuRanks(const GpuExchange& sizes) {
    int gpus = 0;
    LONGCAT_CUDA(cudaGetDeviceCount(&gpus));
    for (int gpu = 0; gpu < gpus && gpu < sizes.ranks; ++gpu) loadKernels(sizes, gpu);
    std::vector<WindowHandle> handles;
    for (int64_t r = 0; r < sizes.ranks; ++r) {
      ranks_.push_back(std::make_unique<GpuRank>(sizes, r, static_cast<int>(r % gpus)));
      ranks_.back()->context.multiprocessors /= static_cast<int>((sizes.ranks + gpus - 1) / gpus);  // blocks that wait for those of another rank leave them room
      handles.push_back(ranks_.back()->handle);
    }
    for (auto& rank : ranks_) rank->join(handles);
  }

  GpuRank& operator[](int64_t r) const { return *ranks_[static_cast<size_t>(r)]; }
  int64_t size() const { return static_cast<int64_t>(ranks_.size()); }

  /// All that was enqueued; after some seconds the exchange is given up, and that is an error.
  void wait() const {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(8);
    bool late = false;
    for (const auto& rank : ranks_) {
      rank->select();
      for (cudaError_t state; (state = cudaStreamQuery(rank->context.stream)) != cudaSuccess;) {
        if (state != cudaErrorNotReady) LONGCAT_CUDA(state);
        cudaGetLastError();
        if (!late && std::chrono::steady_clock::now() > end) {
          late = true;
          for (const auto& other : ranks_) other->word(0) = 1;
        }
        std::this_thread::sleep_for(std::chrono::microseconds(20));
      }
    }
    if (late) throw Error("COMM_ERROR", "the ranks' exchange did not end");
  }

 private:
  /// CUDA loads a kernel when it is launched first, and may wait for all that runs meanwhile: for a rank's dispatch, say, which waits for another rank
  /// that this thread has not come to. So a rank alone runs the same kernels first.
  static void loadKernels(const GpuExchange& sizes, int gpu) {
    GpuExchange alone = sizes;
    alone.windowTokens = sizes.ranks * sizes.windowTokens, alone.ranks = 1;
    GpuRank rank(alone, 0, gpu);
    rank.join({rank.handle});
    const GpuProgram p = rank.program(alone.windowTokens);  // of no rows
    rank.dispatch(p);
    rank.combine(p);
    LONGCAT_CUDA(cudaStreamSynchronize(rank.context.stream));
  }

  std::vector<std::unique_ptr<GpuRank>> ranks_;
};

}  // namespace longcat
