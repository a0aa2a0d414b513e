// What the harness of the operations asks of a GPU (harness_cuda.cc; only in builds with CUDA).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "ops/op.h"

namespace longcat {

struct GpuOptions {
  int device = 0;
  bool fp8Activations = false;  // CudaContext::fp8Activations
  bool graph = false;           // capture each call and replay the graph once, instead of launching it
  bool guards = true;           // poisoned bytes before and behind each buffer, looked at afterwards; without, compute-sanitizer sees every byte
  bool batchInvariant = true;   // CudaContext::batchInvariant
  bool portable = false;        // CudaContext::usePortableKernels()
};

/// Selects the GPU for all that follows. Throws Error("DEVICE_UNAVAILABLE") naming what is missing.
void useGpu(const GpuOptions& options);
const GpuOptions& gpuOptions();
bool gpuAvailable();

/// Runs the operation on the GPU: memory that the arguments touch is mirrored there, and what is not read only comes back. `narrow`: the
/// operation's float32 activations are bfloat16 there. A number that the operation did not change keeps its bits here.
void runOnGpu(const OpSpec& spec, const OpArgs& arguments, bool narrow);

/// to = from × scale (null: unscaled) by cuda/convert.h. Matrices in host memory, mirrored as an operation's are.
void convertOnGpu(const Tensor& from, const Tensor* scale, const Tensor& to);

/// Before anything launched later on the stream of tests and benchmarks, which the legacy stream's copies do not wait for.
void copyToGpu(void* to, const void* from, size_t bytes);

/// Whether an earlier fault has left the process without its GPU; `why`: CUDA's words.
bool gpuLost(std::string* why);

struct BenchCeilings;

// For benchmarks (harness_bench_cuda.cc).
std::shared_ptr<Buffer> allocateOnGpu(size_t bytes);
/// Every element of a dense tensor (cuda/ceilings.h).
void fillRandomOnGpu(const Tensor& tensor, float low, float high, uint64_t seed);
/// Seconds of a call: many in a row in a captured graph, the next one's launch after the last one's, each over other copies of its operands so that
/// the card's cache holds none of them; one number a replay. `bytes`: what a call moves.
std::vector<double> timeOnGpu(const OpSpec& spec, const OpArgs& arguments, double bytes);
/// The card's ceilings, its name and its compute capability ("9.0").
BenchCeilings measureOnGpu(std::string* name, std::string* capability);

}  // namespace longcat
