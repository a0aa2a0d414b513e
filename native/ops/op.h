// What an operation is to the runtime: a name, its arguments, a check that turns arguments into plain parameters, and
// one compiled body for each instruction set. A room of native/ops adds one OpSpec and one line in registry.cc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <type_traits>

#include "runtime/tensor.h"
#include "runtime/thread_pool.h"

namespace longcat {

constexpr int kMaxTensors = 96;       // n-gram embedding names 2 tensors a table
constexpr int kMaxScalars = 16;
constexpr size_t kMaxParamBytes = 2048;

enum class Use : uint8_t { in, out, inout };

struct TensorArg {
  const char* name;
  Use use = Use::in;
  bool optional = false;
  bool activation = false;  // float32, or bfloat16 on a GPU: all of an operation's activations alike (ops/activation.h)
};

/// Arguments as they arrive: tensor[i] belongs to OpSpec::tensors[i] and is null where an optional one is absent.
/// An operation whose last TensorArg ends in "..." takes any number more (numTensors tells).
struct OpArgs {
  bool onGpu = false;  // the device is a GPU, where activations may be bfloat16
  int numTensors = 0;
  int numScalars = 0;
  const Tensor* tensor[kMaxTensors] = {};
  double scalar[kMaxScalars] = {};
};

/// What a CPU body may use besides its parameters.
struct CpuContext {
  ThreadPool& pool;
  std::byte* threadScratch;      // threads × threadScratchBytes, 64-byte aligned; contents undefined
  size_t threadScratchBytes;     // of one thread: at least what OpSpec::threadScratch asked for
  template <class T>
  T* scratch(int thread) const { return reinterpret_cast<T*>(threadScratch + static_cast<size_t>(thread) * threadScratchBytes); }
};

/// What a body is compiled for. The last two are no instruction sets of a processor: in tests and benchmarks they stand for a GPU with
/// float32 or with bfloat16 activations.
enum class Isa : int { plain = 0, avx2 = 1, avx512 = 2, cuda = 3, cudaBf16 = 4 };
constexpr bool isGpu(Isa isa) { return isa >= Isa::cuda; }
using CpuBody = void (*)(const void* params, const CpuContext&);

struct CudaContext;  // cuda/context.h
/// Launches kernels on the context's stream; never waits, allocates or copies to the host, so that it may be captured.
using CudaBody = void (*)(const void* params, const CudaContext&);

struct OpSpec {
  const char* name;                                        // snake_case, the room's name
  const TensorArg* tensors; int numTensors;                // as in OpArgs
  const char* const* scalars; int numScalars;
  /// Checks shapes and dtypes (throws Error) and writes the plain Params struct. Runs on the JavaScript thread.
  void (*prepare)(const OpArgs&, void* params);
  /// Bytes of scratch for one thread; pure.
  size_t (*threadScratch)(const void* params);
  CpuBody cpu[3];                                          // by Isa
  CudaBody cuda;                                           // null in a build without CUDA
};

/// All operations, in the order of their ids. The addon's ops() lists them by name for ts/runtime/ops.ts.
const OpSpec* const* allOps(int* count);

// Each CPU body is compiled three times (LONGCAT_ISA = plain, avx2, avx512) in a namespace of that name:
//   namespace longcat::LONGCAT_ISA { void rms_norm(const void* params, const CpuContext& context) { … } }
// Other processors than x86-64 have the plain one alone.
#ifdef LONGCAT_ONLY_PLAIN
#define LONGCAT_DECLARE_CPU(op) \
  namespace plain { void op(const void*, const CpuContext&); }
#define LONGCAT_CPU_BODIES(op) {plain::op, plain::op, plain::op}
#else
#define LONGCAT_DECLARE_CPU(op)                                                                             \
  namespace plain { void op(const void*, const CpuContext&); }                                              \
  namespace avx2 { void op(const void*, const CpuContext&); }                                               \
  namespace avx512 { void op(const void*, const CpuContext&); }
#define LONGCAT_CPU_BODIES(op) {plain::op, avx2::op, avx512::op}
#endif

// The body for GPUs, in native/ops/<op>/sm80.cu: namespace longcat::cuda { void rms_norm(const void* params, const CudaContext&) { … } }
#ifdef LONGCAT_HAS_CUDA
#define LONGCAT_DECLARE_CUDA(op) \
  namespace cuda { void op(const void*, const CudaContext&); }
#define LONGCAT_CUDA_BODY(op) cuda::op
#else
#define LONGCAT_DECLARE_CUDA(op)
#define LONGCAT_CUDA_BODY(op) nullptr
#endif
/// Both kinds of body, for the room's op.cc.
#define LONGCAT_DECLARE_BODIES(op) LONGCAT_DECLARE_CPU(op) LONGCAT_DECLARE_CUDA(op)

/// For prepare(): places a Params struct in the command's storage.
template <class P>
P& paramsAt(void* storage) {
  static_assert(sizeof(P) <= kMaxParamBytes && std::is_trivially_copyable_v<P>);
  return *new (storage) P{};
}

}  // namespace longcat
