// Tests of operations on a GPU: mirrors a call's memory there, runs the operation, looks at the guards, brings the results back.
#include "ops/harness_cuda.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <vector>

#include "cuda/check.h"
#include "cuda/context.h"
#include "cuda/convert.h"
#include "ops/harness_gpu_state.h"
#include "ops/registry.h"
#include "runtime/error.h"
#include "runtime/float_formats.h"
#include "runtime/memory.h"

namespace longcat {
namespace {

constexpr size_t kGuardBytes = 256;
constexpr int kGuardByte = 0xa5;
constexpr size_t kAlignment = 64;             // of heap buffers; a mirror starts at the same place within it
constexpr size_t kCompareUpTo = 4u << 20;     // read-only memory up to this size is looked at afterwards

/// bfloat16 of a float32; poison (all ones) stays poison.
uint16_t narrowed(const std::byte* f32) {
  float value;
  std::memcpy(&value, f32, sizeof value);
  return bf16OfFloat(value);
}

/// A range of host memory and its image on the device: guard, numbers, guard.
class Range {
 public:
  std::byte *begin, *end;
  bool narrow = false;    // float32 here, bfloat16 there
  bool written = false;   // belongs to a tensor that the operation may write

  Range(std::byte* from, size_t bytes) : begin(from), end(from + bytes) {}
  Range(const Range&) = delete;
  Range& operator=(const Range&) = delete;
  ~Range() { cudaFree(device_); }

  void upload(bool guards) {
    const size_t host = reinterpret_cast<uintptr_t>(begin) / (narrow ? 2 : 1);
    front_ = (guards ? kGuardBytes : 0) + host % kAlignment;
    back_ = guards ? kGuardBytes : 0;
    image_.assign(front_ + bytesThere() + back_, static_cast<std::byte>(kGuardByte));
    if (narrow) {
      auto* to = reinterpret_cast<uint16_t*>(image_.data() + front_);
      for (size_t i = 0; i < bytesThere() / 2; ++i) to[i] = narrowed(begin + 4 * i);
    } else if (end > begin) {
      std::memcpy(image_.data() + front_, begin, bytesThere());
    }
    LONGCAT_CUDA(cudaMalloc(&device_, std::max<size_t>(image_.size(), 1)));
    copyToGpu(device_, image_.data(), image_.size());
  }

  std::byte* deviceAddress(const std::byte* host) const {
    return static_cast<std::byte*>(device_) + front_ + static_cast<size_t>(host - begin) / (narrow ? 2 : 1);
  }

  /// Brings back what was written; what is wrong, or "".
  std::string download() {
    if (!written && image_.size() > kCompareUpTo) return "";
    std::vector<std::byte> now(image_.size());
    LONGCAT_CUDA(cudaMemcpy(now.data(), device_, now.size(), cudaMemcpyDeviceToHost));
    const size_t behind = front_ + bytesThere();
    if (std::memcmp(now.data(), image_.data(), front_) != 0) return "wrote before the memory of ";
    if (std::memcmp(now.data() + behind, image_.data() + behind, back_) != 0) return "wrote beyond the memory of ";
    if (!written) return now == image_ ? "" : "wrote to the read-only memory of ";
    if (!narrow) {
      std::memcpy(begin, now.data() + front_, bytesThere());
      return "";
    }
    const auto* before = reinterpret_cast<const uint16_t*>(image_.data() + front_);
    const auto* after = reinterpret_cast<const uint16_t*>(now.data() + front_);
    for (size_t i = 0; i < bytesThere() / 2; ++i) {
      if (after[i] == before[i]) continue;
      const float value = floatOfBf16(after[i]);
      std::memcpy(begin + 4 * i, &value, sizeof value);
    }
    return "";
  }

 private:
  size_t bytesThere() const { return static_cast<size_t>(end - begin) / (narrow ? 2 : 1) & (narrow ? ~size_t{1} : ~size_t{0}); }
  void* device_ = nullptr;
  size_t front_ = 0, back_ = 0;
  std::vector<std::byte> image_;
};

/// The memory of one call, here and there.
class Mirror {
 public:
  Mirror(const OpSpec& spec, const OpArgs& host, bool narrow, bool guards) : spec_(spec), host_(host) {
    collect();
    merge();
    for (int i = 0; i < host.numTensors; ++i) markRanges(i, narrow);
    for (Range& range : ranges_) range.upload(guards);
    device_ = host;
    device_.onGpu = true;
    for (int i = 0; i < host.numTensors; ++i) {
      if (host.tensor[i]) device_.tensor[i] = &there(*host.tensor[i]);
    }
  }
  ~Mirror() {
    for (void* list : lists_) cudaFree(list);
  }
  Mirror(const Mirror&) = delete;
  Mirror& operator=(const Mirror&) = delete;

  const OpArgs& arguments() const { return device_; }

  void download() {
    std::string wrong;
    for (Range& range : ranges_) {
      const std::string what = range.download();
      if (!what.empty()) wrong += (wrong.empty() ? "" : "; ") + what + namesWithin(range);
    }
    if (!wrong.empty()) throw Error("INTERNAL", std::string(spec_.name) + " on the GPU " + wrong);
  }

 private:
  struct Bounds { std::byte *begin, *end; };

  /// Where a tensor's numbers are: its buffer, or its own span where it lies outside of it (or has none); a stack's parts.
  static std::vector<Bounds> boundsOf(const Tensor& t) {
    std::vector<Bounds> all;
    if (t.parts) {
      const size_t bytes = static_cast<size_t>(t.shape[0] ? t.elements() / t.shape[0] : 0) * bytesOf(t.dtype);
      for (const std::byte* part : *t.parts) {  // a null part is nowhere, on the device too
        if (part) all.push_back({const_cast<std::byte*>(part), const_cast<std::byte*>(part) + bytes});
      }
      return all;
    }
    std::byte *begin = t.data, *end = t.data + spanBytes(t);
    if (t.buffer && begin >= t.buffer->data() && end <= t.buffer->data() + t.buffer->bytes()) begin = t.buffer->data(), end = begin + t.buffer->bytes();
    return {{begin, end}};
  }

  void collect() {
    for (int i = 0; i < host_.numTensors; ++i) {
      if (!host_.tensor[i]) continue;
      const std::vector<Bounds> of = boundsOf(*host_.tensor[i]);
      bounds_.insert(bounds_.end(), of.begin(), of.end());
    }
  }

  void merge() {
    std::sort(bounds_.begin(), bounds_.end(), [](const Bounds& a, const Bounds& b) { return a.begin < b.begin; });
    for (const Bounds& b : bounds_) {
      if (!ranges_.empty() && (b.begin < ranges_.back().end || b.begin == ranges_.back().begin)) ranges_.back().end = std::max(ranges_.back().end, b.end);
      else ranges_.emplace_back(b.begin, static_cast<size_t>(b.end - b.begin));
    }
  }

  Range& rangeOf(const std::byte* address) {
    const auto after = std::upper_bound(ranges_.begin(), ranges_.end(), address, [](const std::byte* a, const Range& r) { return a < r.begin; });
    require(after != ranges_.begin(), "an address outside of the mirrored memory");
    return *std::prev(after);
  }

  void markRanges(int i, bool narrow) {
    if (!host_.tensor[i]) return;
    const Tensor& t = *host_.tensor[i];
    const TensorArg& arg = tensorArg(spec_, i);
    for (const Bounds& b : boundsOf(t)) {
      Range& range = rangeOf(b.begin);
      range.written = range.written || arg.use != Use::in;
      range.narrow = range.narrow || (narrow && arg.activation && t.dtype == DType::f32);
    }
  }

  /// The tensor as it is on the device.
  const Tensor& there(const Tensor& t) {
    tensors_.push_back(t);
    Tensor& result = tensors_.back();
    result.buffer = nullptr;
    if (t.parts) {
      auto parts = std::make_shared<std::vector<const std::byte*>>();
      for (const std::byte* part : *t.parts) parts->push_back(part ? rangeOf(part).deviceAddress(part) : nullptr);
      void* list = nullptr;
      LONGCAT_CUDA(cudaMalloc(&list, std::max<size_t>(parts->size(), 1) * sizeof(void*)));
      lists_.push_back(list);
      copyToGpu(list, parts->data(), parts->size() * sizeof(void*));
      result.data = static_cast<std::byte*>(list);
      result.parts = parts;
      return result;
    }
    const Range& range = rangeOf(t.data);
    if (range.narrow) {
      require(t.dtype == DType::f32, std::string(spec_.name) + ": activations share memory with " + nameOf(t.dtype));
      result.dtype = DType::bf16;
    }
    result.data = range.deviceAddress(t.data);
    return result;
  }

  std::string namesWithin(const Range& range) {
    std::string names;
    for (int i = 0; i < host_.numTensors; ++i) {
      if (!host_.tensor[i]) continue;
      for (const Bounds& b : boundsOf(*host_.tensor[i])) {
        if (b.begin < range.begin || b.begin >= std::max(range.end, range.begin + 1)) continue;
        names += (names.empty() ? "" : " and ") + std::string(tensorArg(spec_, i).name);
        break;
      }
    }
    return names;
  }

  const OpSpec& spec_;
  const OpArgs& host_;
  OpArgs device_;
  std::vector<Bounds> bounds_;
  std::deque<Range> ranges_;     // by address, apart
  std::deque<Tensor> tensors_;
  std::vector<void*> lists_;
};

void launchInGraph(const OpSpec& spec, const void* params, const CudaContext& context) {
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  LONGCAT_CUDA(cudaStreamBeginCapture(context.stream, cudaStreamCaptureModeThreadLocal));
  try {
    spec.cuda(params, context);
  } catch (...) {
    cudaStreamEndCapture(context.stream, &graph);
    if (graph) cudaGraphDestroy(graph);
    throw;
  }
  LONGCAT_CUDA(cudaStreamEndCapture(context.stream, &graph));
  LONGCAT_CUDA(cudaGraphInstantiate(&executable, graph, 0));
  LONGCAT_CUDA(cudaGraphLaunch(executable, context.stream));
  LONGCAT_CUDA(cudaStreamSynchronize(context.stream));
  LONGCAT_CUDA(cudaGraphExecDestroy(executable));
  LONGCAT_CUDA(cudaGraphDestroy(graph));
}

GpuState& state() {
  static GpuState one;
  return one;
}

}  // namespace

const GpuState& gpuState() { return state(); }
const GpuOptions& gpuOptions() { return state().options; }

bool gpuAvailable() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
}

void useGpu(const GpuOptions& options) {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) throw Error("DEVICE_UNAVAILABLE", std::string("no GPU can be used: ") + cudaGetErrorString(error));
  if (options.device < 0 || options.device >= count)
    throw Error("DEVICE_UNAVAILABLE", "there is no cuda:" + std::to_string(options.device) + "; this machine has " + std::to_string(count) + " GPUs");
  LONGCAT_CUDA(cudaSetDevice(options.device));
  GpuState& s = state();
  s.options = options;
  LONGCAT_CUDA(cudaGetDeviceProperties(&s.properties, options.device));
  if (!s.context.stream) LONGCAT_CUDA(cudaStreamCreateWithFlags(&s.context.stream, cudaStreamNonBlocking));
  s.context.useCard(s.properties);
  if (options.portable) s.context.usePortableKernels();
  s.context.fp8Activations = options.fp8Activations;
  s.context.batchInvariant = options.batchInvariant;
}

void copyToGpu(void* to, const void* from, size_t bytes) {
  if (bytes == 0) return;
  cudaStream_t stream = state().context.stream;
  LONGCAT_CUDA(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream));
  LONGCAT_CUDA(cudaStreamSynchronize(stream));
}

bool gpuLost(std::string* why) {
  cudaGetLastError();
  const cudaError_t error = cudaStreamSynchronize(state().context.stream);
  if (error != cudaSuccess) *why = std::string(cudaGetErrorName(error)) + ": " + cudaGetErrorString(error);
  return error != cudaSuccess;
}

void runOnGpu(const OpSpec& spec, const OpArgs& arguments, bool narrow) {
  require(spec.cuda != nullptr, std::string(spec.name) + " has no body for GPUs");
  const GpuState& s = state();
  Mirror mirror(spec, arguments, narrow, s.options.guards);
  LONGCAT_CUDA(cudaDeviceSynchronize());  // a copy from pageable memory may still be under way, and the stream below does not wait for it
  alignas(64) std::byte params[kMaxParamBytes];
  spec.prepare(mirror.arguments(), params);
  if (s.options.graph) launchInGraph(spec, params, s.context);
  else spec.cuda(params, s.context);
  const cudaError_t error = cudaStreamSynchronize(s.context.stream);
  if (error != cudaSuccess) throwCuda(error, spec.name, __FILE__, __LINE__);
  mirror.download();
}

void convertOnGpu(const Tensor& from, const Tensor* scale, const Tensor& to) {
  const GpuState& s = state();
  std::deque<Range> ranges;
  const auto mirrored = [&](const Tensor& tensor, bool written) {
    Range& range = ranges.emplace_back(tensor.data, spanBytes(tensor));
    range.written = written;
    range.upload(s.options.guards);
    return range.deviceAddress(tensor.data);
  };
  const std::byte* source = mirrored(from, false);
  const auto* scales = scale ? reinterpret_cast<const float*>(mirrored(*scale, false)) : nullptr;
  cuda::convertOnDevice(s.context, source, from.dtype, scales, from.shape[0], from.shape[1], mirrored(to, true), to.dtype);
  LONGCAT_CUDA(cudaStreamSynchronize(s.context.stream));
  for (Range& range : ranges) {
    const std::string wrong = range.download();
    if (!wrong.empty()) throw Error("INTERNAL", "the conversion on the GPU " + wrong + "its arguments");
  }
}

}  // namespace longcat
