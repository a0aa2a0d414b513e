// Benchmarks on a GPU: memory, random numbers, the clock (harness_cuda.h).
#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <vector>

#include "cuda/ceilings.h"
#include "cuda/check.h"
#include "cuda/events.h"
#include "ops/harness_bench.h"
#include "ops/harness_cuda.h"
#include "ops/harness_gpu_state.h"
#include "runtime/error.h"

namespace longcat {
namespace {

constexpr double kColdBytes = 400e6;    // operands that a graph goes through before it comes back to the first: many times a card's cache
constexpr int kMostSets = 64;
constexpr int kLeastCalls = 16;         // of short operations in one graph
constexpr double kSecondsAGraph = 5e-3; // of long ones
constexpr double kSecondsACase = 0.3;
constexpr int kMaxReplays = 20;

class GpuBuffer : public Buffer {
 public:
  explicit GpuBuffer(size_t bytes) : Buffer(nullptr, bytes) {
    void* memory = nullptr;
    const cudaError_t error = cudaMalloc(&memory, std::max<size_t>(bytes, 1));
    if (error == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      throw Error("OUT_OF_MEMORY", "the GPU has no " + std::to_string(bytes) + " bytes left for a benchmark");
    }
    LONGCAT_CUDA(error);
    data_ = static_cast<std::byte*>(memory);
  }
  ~GpuBuffer() override { cudaFree(data_); }
};

/// The operands of one call, copied in stream order: what shared memory shares it in the copy, too. Stacks stay where they are, since the experts of one call
/// are many times a cache as a rule.
class OperandSet {
 public:
  explicit OperandSet(const OpArgs& from) : arguments_(from), tensors_(static_cast<size_t>(from.numTensors)) {
    for (int i = 0; i < from.numTensors; ++i) {
      if (!from.tensor[i]) continue;
      Tensor& tensor = tensors_[static_cast<size_t>(i)];
      tensor = *from.tensor[i];
      if (!tensor.parts) move(tensor);
      arguments_.tensor[i] = &tensor;
    }
  }
  OperandSet(const OperandSet&) = delete;
  OperandSet& operator=(const OperandSet&) = delete;
  const OpArgs& arguments() const { return arguments_; }

 private:
  void move(Tensor& tensor) {
    std::shared_ptr<Buffer>& copy = copies_[tensor.buffer.get()];
    if (!copy) {
      copy = allocateOnGpu(tensor.buffer->bytes());
      LONGCAT_CUDA(cudaMemcpyAsync(copy->data(), tensor.buffer->data(), copy->bytes(), cudaMemcpyDeviceToDevice, gpuState().context.stream));
    }
    tensor.data = copy->data() + (tensor.data - tensor.buffer->data());
    tensor.buffer = copy;
  }

  OpArgs arguments_;
  std::vector<Tensor> tensors_;
  std::map<const Buffer*, std::shared_ptr<Buffer>> copies_;
};

/// Bytes that a copy of the operands takes.
double bytesOfSet(const OpArgs& arguments) {
  std::map<const Buffer*, double> buffers;
  for (int i = 0; i < arguments.numTensors; ++i) {
    const Tensor* t = arguments.tensor[i];
    if (t && !t->parts) buffers[t->buffer.get()] = static_cast<double>(t->buffer->bytes());
  }
  double sum = 0;
  for (const auto& [buffer, bytes] : buffers) sum += bytes;
  return sum;
}

/// Parameters of one call, as a binding prepares them.
struct Prepared {
  alignas(64) std::byte params[kMaxParamBytes];
};

/// A graph of `calls` calls in a row, over the sets in turn, between two events.
class TimedGraph {
 public:
  TimedGraph(const OpSpec& spec, const std::vector<Prepared>& sets, int calls) : calls_(calls) {
    const CudaContext& context = gpuState().context;
    LONGCAT_CUDA(cudaStreamBeginCapture(context.stream, cudaStreamCaptureModeThreadLocal));
    cudaGraph_t graph = nullptr;
    try {
      LONGCAT_CUDA(cudaEventRecordWithFlags(begin_, context.stream, cudaEventRecordExternal));
      for (int i = 0; i < calls; ++i) spec.cuda(sets[static_cast<size_t>(i) % sets.size()].params, context);
      LONGCAT_CUDA(cudaEventRecordWithFlags(end_, context.stream, cudaEventRecordExternal));
    } catch (...) {
      cudaStreamEndCapture(context.stream, &graph);
      if (graph) cudaGraphDestroy(graph);
      throw;
    }
    LONGCAT_CUDA(cudaStreamEndCapture(context.stream, &graph));
    const cudaError_t error = cudaGraphInstantiate(&executable_, graph, 0);
    cudaGraphDestroy(graph);
    LONGCAT_CUDA(error);
  }
  ~TimedGraph() {
    if (executable_) cudaGraphExecDestroy(executable_);
  }
  TimedGraph(const TimedGraph&) = delete;
  TimedGraph& operator=(const TimedGraph&) = delete;

  /// Replays; seconds of a call.
  double run() const {
    cudaStream_t stream = gpuState().context.stream;
    LONGCAT_CUDA(cudaGraphLaunch(executable_, stream));
    LONGCAT_CUDA(cudaStreamSynchronize(stream));
    float ms = 0;
    LONGCAT_CUDA(cudaEventElapsedTime(&ms, begin_, end_));
    return ms * 1e-3 / calls_;
  }

 private:
  TimedEvent begin_, end_;
  int calls_;
  cudaGraphExec_t executable_ = nullptr;
};

}  // namespace

std::shared_ptr<Buffer> allocateOnGpu(size_t bytes) { return std::make_shared<GpuBuffer>(bytes); }

void fillRandomOnGpu(const Tensor& tensor, float low, float high, uint64_t seed) {
  require(tensor.contiguous(), "only dense memory is filled");
  cuda::fillRandom(gpuState().context, tensor.data, tensor.dtype, tensor.elements(), low, high, seed);
}

std::vector<double> timeOnGpu(const OpSpec& spec, const OpArgs& arguments, double bytes) {
  require(spec.cuda != nullptr, std::string(spec.name) + " has no body for GPUs");
  size_t free = 0, total = 0;
  LONGCAT_CUDA(cudaMemGetInfo(&free, &total));
  const double room = 0.8 * static_cast<double>(free) / std::max(1.0, bytesOfSet(arguments));
  const int sets = std::clamp(static_cast<int>(std::min(std::ceil(kColdBytes / std::max(1.0, bytes)), room)), 1, kMostSets);
  std::vector<std::unique_ptr<OperandSet>> copies;
  std::vector<Prepared> prepared(static_cast<size_t>(sets));
  spec.prepare(arguments, prepared[0].params);
  for (int i = 1; i < sets; ++i) {
    copies.push_back(std::make_unique<OperandSet>(arguments));
    spec.prepare(copies.back()->arguments(), prepared[static_cast<size_t>(i)].params);
  }
  // Once eagerly: loads the kernels, and names the operation if it faults.
  const CudaContext& context = gpuState().context;
  spec.cuda(prepared[0].params, context);
  const cudaError_t error = cudaStreamSynchronize(context.stream);
  if (error != cudaSuccess) throwCuda(error, spec.name, __FILE__, __LINE__);

  const TimedGraph once(spec, prepared, sets);
  once.run();
  const double about = once.run();
  const int least = std::max(sets, kLeastCalls), most = std::max(sets, static_cast<int>(kSecondsAGraph / about));
  const int calls = (std::min(least, most) + sets - 1) / sets * sets;
  const TimedGraph graph(spec, prepared, calls);
  graph.run();
  std::vector<double> samples;
  const int replays = std::clamp(static_cast<int>(kSecondsACase / (about * calls)), 3, kMaxReplays);
  for (int i = 0; i < replays; ++i) samples.push_back(graph.run());
  return samples;
}

BenchCeilings measureOnGpu(std::string* name, std::string* capability) {
  const GpuState& s = gpuState();
  *name = s.properties.name;
  *capability = std::to_string(s.properties.major) + "." + std::to_string(s.properties.minor);
  const cuda::Ceilings c = cuda::measureCeilings(s.context);
  return {c.bytesPerSecond, c.mmaFlops, c.fmaFlops};
}

}  // namespace longcat
