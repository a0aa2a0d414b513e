// The card's ceilings, each by the simplest kernel that reaches it; memory read through; random numbers (ceilings.h).
#include "cuda/ceilings.h"

#include <algorithm>
#include <vector>

#include "cuda/dependent.cuh"
#include "cuda/events.h"
#include "cuda/hopper/ceiling.h"
#include "cuda/launch.cuh"
#include "cuda/mma.cuh"
#include "cuda/numbers.cuh"

namespace longcat::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kChains = 8;      // independent accumulators: more than the latency of a unit asks for
constexpr int kRounds = 4096;   // of every chain
constexpr int kRuns = 8;        // of which the fastest counts

__device__ __forceinline__ uint32_t mix(uint64_t z) {  // splitmix64
  z += 0x9e3779b97f4a7c15ull;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return static_cast<uint32_t>(z >> 32 ^ z);
}

__device__ __forceinline__ float uniform(uint64_t seed, int64_t i, float low, float high) {
  return low + (high - low) * (static_cast<float>(mix(seed + static_cast<uint64_t>(i)) >> 8) * (1.0f / 16777216.0f));
}

__global__ void copyKernel(const uint4* __restrict__ from, uint4* __restrict__ to, int64_t count) {
  awaitPrevious();
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) __stcs(to + i, __ldcs(from + i));
}

__global__ void readKernel(const uint4* __restrict__ from, int64_t count, uint32_t* sink) {
  awaitPrevious();
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  uint32_t all = 0;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) {
    const uint4 v = from[i];
    all ^= v.x ^ v.y ^ v.z ^ v.w;
  }
  if (all == 0x5eed1e55u) *sink = all;  // so that the loads stay
}

/// bfloat16 pairs within (-2, 2): what the units do with ordinary numbers, since zeros draw less power.
__device__ __forceinline__ uint32_t ordinaryPair(uint32_t seed) { return (mix(seed) & 0x80ff80ffu) | 0x3f003f00u; }

__global__ void __launch_bounds__(kThreads) mmaKernel(float* sink) {
  awaitPrevious();
  const uint32_t lane = blockIdx.x * kThreads + threadIdx.x;
  uint32_t a[4], b[2];
  for (int i = 0; i < 4; ++i) a[i] = ordinaryPair(lane * 8 + i);
  for (int i = 0; i < 2; ++i) b[i] = ordinaryPair(lane * 8 + 4 + i);
  float d[kChains][4] = {};
  for (int round = 0; round < kRounds; ++round) {
#pragma unroll
    for (int chain = 0; chain < kChains; ++chain) mma16816(d[chain], a, b[0], b[1]);
  }
  float all = 0;
  for (int chain = 0; chain < kChains; ++chain) all += d[chain][0] + d[chain][1] + d[chain][2] + d[chain][3];
  if (all == 1.2345e-30f) *sink = all;
}

__global__ void __launch_bounds__(kThreads) fmaKernel(float* sink, float factor, float addend) {
  awaitPrevious();
  float d[kChains];
  for (int chain = 0; chain < kChains; ++chain) d[chain] = static_cast<float>(threadIdx.x + chain);
  for (int round = 0; round < kRounds; ++round) {
#pragma unroll
    for (int chain = 0; chain < kChains; ++chain) d[chain] = fmaf(d[chain], factor, addend);
  }
  float all = 0;
  for (int chain = 0; chain < kChains; ++chain) all += d[chain];
  if (all == 1.2345e-30f) *sink = all;
}

__global__ void fillFloats(float* data, int64_t count, float low, float high, uint64_t seed) {
  awaitPrevious();
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) data[i] = uniform(seed, i, low, high);
}

__global__ void fillBf16(Bf16* data, int64_t count, float low, float high, uint64_t seed) {
  awaitPrevious();
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride)
    data[i] = numberOf<Bf16>(uniform(seed, i, low, high));
}

/// Codes with exponent fields 4 to 11 (2⁻³ to 31 in size), any sign and mantissa.
__global__ void fillFp8(uint8_t* data, int64_t count, uint64_t seed) {
  awaitPrevious();
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) {
    const uint32_t bits = mix(seed + static_cast<uint64_t>(i));
    data[i] = static_cast<uint8_t>((bits & 0x80u) | ((bits & 0x3fu) + 0x20u));
  }
}

int64_t fillGrid(const CudaContext& context, int64_t count) { return persistentGrid(context, ceilDiv(count, kThreads), 16); }

class DeviceMemory {
 public:
  explicit DeviceMemory(size_t bytes) { LONGCAT_CUDA(cudaMalloc(&data, bytes)); }
  ~DeviceMemory() { cudaFree(data); }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  void* data = nullptr;
};

/// Seconds of the fastest of kRuns runs; one before them warms up.
template <class Work>
double fastest(const CudaContext& context, const Work& work) {
  TimedEvent begin, end;
  double best = 1e30;
  for (int run = 0; run <= kRuns; ++run) {
    LONGCAT_CUDA(cudaEventRecord(begin, context.stream));
    work();
    LONGCAT_CUDA(cudaEventRecord(end, context.stream));
    LONGCAT_CUDA(cudaEventSynchronize(end));
    float ms = 0;
    LONGCAT_CUDA(cudaEventElapsedTime(&ms, begin, end));
    if (run > 0) best = std::min(best, ms * 1e-3);
  }
  return best;
}

}  // namespace

Ceilings measureCeilings(const CudaContext& context) {
  Ceilings c;
  DeviceMemory sink(sizeof(float));
  {
    const size_t bytes = size_t{512} << 20;
    DeviceMemory from(bytes), to(bytes);
    fillRandom(context, from.data, DType::f32, static_cast<int64_t>(bytes / 4), -1, 1, 1);
    const auto count = static_cast<int64_t>(bytes / sizeof(uint4));
    const double byKernel = fastest(context, [&] {
      launch(context, copyKernel, persistentGrid(context, ceilDiv(count, kThreads), 16), kThreads, 0, static_cast<const uint4*>(from.data), static_cast<uint4*>(to.data), count);
    });
    const double byCopy = fastest(context, [&] { LONGCAT_CUDA(cudaMemcpyAsync(to.data, from.data, bytes, cudaMemcpyDeviceToDevice, context.stream)); });
    const double byRead = fastest(context, [&] {
      launch(context, readKernel, persistentGrid(context, ceilDiv(count, kThreads), 8), kThreads, 0, static_cast<const uint4*>(from.data), count, static_cast<uint32_t*>(sink.data));
    });
    c.bytesPerSecond = static_cast<double>(bytes) * std::max(2.0 / std::min(byKernel, byCopy), 1.0 / byRead);
  }
  for (int perMultiprocessor : {1, 2, 4}) {
    const int blocks = context.multiprocessors * perMultiprocessor;
    const double warps = static_cast<double>(blocks) * (kThreads / 32), steps = static_cast<double>(kRounds) * kChains;
    const double mma = fastest(context, [&] { launch(context, mmaKernel, blocks, kThreads, 0, static_cast<float*>(sink.data)); });
    const double fma = fastest(context, [&] { launch(context, fmaKernel, blocks, kThreads, 0, static_cast<float*>(sink.data), 0.999f, 0.001f); });
    c.mmaFlops = std::max(c.mmaFlops, warps * steps * 2 * 16 * 8 * 16 / mma);
    c.fmaFlops = std::max(c.fmaFlops, warps * 32 * steps * 2 / fma);
  }
  if (context.capability == 90) {
    double flops = 0;
    const double seconds = fastest(context, [&] { flops = launchWgmma(context, static_cast<float*>(sink.data)); });
    c.mmaFlops = std::max(c.mmaFlops, flops / seconds);
  }
  return c;
}

void fillRandom(const CudaContext& context, void* data, DType dtype, int64_t count, float low, float high, uint64_t seed) {
  if (count == 0) return;
  const auto grid = static_cast<unsigned>(fillGrid(context, count));
  if (dtype == DType::bf16) launch(context, fillBf16, grid, kThreads, 0, static_cast<Bf16*>(data), count, low, high, seed);
  else if (dtype == DType::f8e4m3) launch(context, fillFp8, grid, kThreads, 0, static_cast<uint8_t*>(data), count, seed);
  else launch(context, fillFloats, grid, kThreads, 0, static_cast<float*>(data), count, low, high, seed);
}

}  // namespace longcat::cuda
