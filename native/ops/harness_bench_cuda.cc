// Benchmarks on a GPU: memory, random numbers, the clock (harness_cuda.h).
#include <algorithm>
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

constexpr int kUnits = 8;             // timed runs in one graph
constexpr double kSecondsACase = 0.3; // of the operation and what defeats the cache
constexpr int kMaxReplays = 8;

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

/// Memory four times the size of the card's cache. It is read, not written: written lines would still have to leave while the operation runs.
struct CacheBreaker {
  GpuBuffer memory{std::max<size_t>(static_cast<size_t>(gpuState().properties.l2CacheSize) * 4, size_t{64} << 20)};
  GpuBuffer sink{sizeof(uint32_t)};
  void run() const { cuda::readThrough(gpuState().context, memory.data(), memory.bytes(), reinterpret_cast<uint32_t*>(sink.data())); }
};

const CacheBreaker& cacheBreaker() {
  static const auto* one = new CacheBreaker();  // lives as long as the CUDA context
  return *one;
}

/// A graph of kUnits times: read over the cache, event, operation, event.
class TimedGraph {
 public:
  TimedGraph(const OpSpec& spec, const void* params) {
    const CudaContext& context = gpuState().context;
    const CacheBreaker& breaker = cacheBreaker();
    LONGCAT_CUDA(cudaStreamBeginCapture(context.stream, cudaStreamCaptureModeThreadLocal));
    cudaGraph_t graph = nullptr;
    try {
      for (int i = 0; i < kUnits; ++i) {
        breaker.run();
        LONGCAT_CUDA(cudaEventRecordWithFlags(begin_[i], context.stream, cudaEventRecordExternal));
        spec.cuda(params, context);
        LONGCAT_CUDA(cudaEventRecordWithFlags(end_[i], context.stream, cudaEventRecordExternal));
      }
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

  /// Replays; seconds of each run go behind `samples`.
  void run(std::vector<double>& samples) const {
    cudaStream_t stream = gpuState().context.stream;
    LONGCAT_CUDA(cudaGraphLaunch(executable_, stream));
    LONGCAT_CUDA(cudaStreamSynchronize(stream));
    for (int i = 0; i < kUnits; ++i) {
      float ms = 0;
      LONGCAT_CUDA(cudaEventElapsedTime(&ms, begin_[i], end_[i]));
      samples.push_back(ms * 1e-3);
    }
  }

 private:
  TimedEvent begin_[kUnits], end_[kUnits];
  cudaGraphExec_t executable_ = nullptr;
};

}  // namespace

std::shared_ptr<Buffer> allocateOnGpu(size_t bytes) { return std::make_shared<GpuBuffer>(bytes); }

void fillRandomOnGpu(const Tensor& tensor, float low, float high, uint64_t seed) {
  require(tensor.contiguous(), "only dense memory is filled");
  cuda::fillRandom(gpuState().context, tensor.data, tensor.dtype, tensor.elements(), low, high, seed);
}

std::vector<double> timeOnGpu(const OpSpec& spec, const OpArgs& arguments) {
  require(spec.cuda != nullptr, std::string(spec.name) + " has no body for GPUs");
  alignas(64) std::byte params[kMaxParamBytes];
  spec.prepare(arguments, params);
  const CudaContext& context = gpuState().context;
  // Once eagerly: loads the kernels, and names the operation if it faults.
  spec.cuda(params, context);
  const cudaError_t error = cudaStreamSynchronize(context.stream);
  if (error != cudaSuccess) throwCuda(error, spec.name, __FILE__, __LINE__);

  const TimedGraph graph(spec, params);
  std::vector<double> samples;
  graph.run(samples);  // warms up, and says how many more there is time for
  const double least = *std::min_element(samples.begin(), samples.end()) + 1e-4;
  samples.clear();
  const int replays = std::clamp(static_cast<int>(kSecondsACase / (least * kUnits)), 1, kMaxReplays);
  for (int i = 0; i < replays; ++i) graph.run(samples);
  return samples;
}

BenchCeilings measureOnGpu(std::string* name, std::string* capability) {
  const GpuState& s = gpuState();
  *name = s.properties.name;
  *capability = std::to_string(s.properties.major) + "." + std::to_string(s.properties.minor);
  const cuda::Ceilings c = cuda::measureCeilings(s.context);
  return {c.copyBytesPerSecond, c.mmaFlops, c.fmaFlops};
}

}  // namespace longcat
