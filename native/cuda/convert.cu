// Conversion of weights on the device (convert.h). NaNs are made as a host makes them, so that both give the same bits.
#include "cuda/convert.h"

#include <string>

#include "cuda/chunk.cuh"
#include "cuda/dependent.cuh"
#include "cuda/launch.cuh"
#include "cuda/numbers.cuh"
#include "runtime/error.h"

namespace longcat::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kBlocksPerMultiprocessor = 8;

/// Rounded to nearest, ties to even; a NaN keeps its upper bits and becomes quiet.
__device__ __forceinline__ uint16_t bf16Bits(float value) {
  const uint32_t bits = __float_as_uint(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

/// code × scale; a NaN has the bits that x86 gives it.
__device__ __forceinline__ float scaled(Fp8 code, float scale) {
  const float product = __fmul_rn(floatOf(code), scale);
  if (product == product) return product;
  if ((code.code & 0x7f) == 0x7f) return __uint_as_float(0x7fc00000u);
  if (scale != scale) return __uint_as_float(__float_as_uint(scale) | 0x400000u);
  return __uint_as_float(0xffc00000u);  // 0 × infinity
}

// The numbers of a chunk as float, with the FP8 block scales where there are some. `at` is the chunk's first element, `blocks`
// the scales of a row.
__device__ __forceinline__ void widen(const Chunk<float>& from, const float*, int64_t, int64_t, int64_t, int, float (&v)[kChunk]) {
#pragma unroll
  for (int i = 0; i < kChunk; ++i) v[i] = from.value[i];
}
__device__ __forceinline__ void widen(const Chunk<uint16_t>& from, const float*, int64_t, int64_t, int64_t, int, float (&v)[kChunk]) {
#pragma unroll
  for (int i = 0; i < kChunk; ++i) v[i] = __uint_as_float(static_cast<uint32_t>(from.value[i]) << 16);
}
__device__ __forceinline__ void widen(const Chunk<Fp8>& from, const float* scale, int64_t at, int64_t columns, int64_t blocks, int n,
                                      float (&v)[kChunk]) {
  int64_t row = at / columns, column = at - row * columns;
  if (columns % kChunk == 0) {  // all of the chunk is in one row and one block
    const float factor = scale[row / kFp8Block * blocks + column / kFp8Block];
#pragma unroll
    for (int i = 0; i < kChunk; ++i) v[i] = scaled(from.value[i], factor);
    return;
  }
#pragma unroll
  for (int i = 0; i < kChunk; ++i) {
    if (i >= n) break;
    v[i] = scaled(from.value[i], scale[row / kFp8Block * blocks + column / kFp8Block]);
    if (++column == columns) column = 0, ++row;
  }
}

__device__ __forceinline__ void narrow(const float (&v)[kChunk], Chunk<float>& to) {
#pragma unroll
  for (int i = 0; i < kChunk; ++i) to.value[i] = v[i];
}
__device__ __forceinline__ void narrow(const float (&v)[kChunk], Chunk<uint16_t>& to) {
#pragma unroll
  for (int i = 0; i < kChunk; ++i) to.value[i] = bf16Bits(v[i]);
}

/// The matrix as one line of elements, a chunk for each thread and step. From and To: float, uint16_t (bf16's bits) or Fp8.
template <class From, class To>
__global__ void __launch_bounds__(kThreads) convertKernel(const From* from, const float* scale, int64_t elements, int64_t columns, int64_t blocks,
                                                          To* to) {
  awaitPrevious();
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads * kChunk;
  for (int64_t at = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kChunk; at < elements; at += step) {
    const int n = static_cast<int>(elements - at < kChunk ? elements - at : kChunk);
    float v[kChunk] = {};
    widen(loadStored(from + at, n), scale, at, columns, blocks, n, v);
    Chunk<To> chunk;
    narrow(v, chunk);
    storeStored(to + at, n, chunk);
  }
}

template <class From>
void convertFrom(const CudaContext& context, const void* from, const float* scale, int64_t elements, int64_t columns, void* to, DType toDtype) {
  const int grid = persistentGrid(context, ceilDiv(elements, kThreads * kChunk), kBlocksPerMultiprocessor);
  const auto* source = static_cast<const From*>(from);
  const auto convertTo = [&](auto* target, auto kernel) {
    launch(context, kernel, grid, kThreads, 0, source, scale, elements, columns, fp8Blocks(columns), target);
  };
  if (toDtype == DType::f32) convertTo(static_cast<float*>(to), convertKernel<From, float>);
  else convertTo(static_cast<uint16_t*>(to), convertKernel<From, uint16_t>);
}

}  // namespace

void convertOnDevice(const CudaContext& context, const void* from, DType fromDtype, const float* scale, int64_t rows, int64_t columns, void* to,
                     DType toDtype) {
  if (toDtype != DType::f32 && toDtype != DType::bf16) throw Error("INTERNAL", std::string("cannot convert to ") + nameOf(toDtype));
  if ((fromDtype == DType::f8e4m3) != (scale != nullptr)) throw Error("INTERNAL", "scales belong to float8_e4m3, and to it alone");
  const int64_t elements = rows * columns;
  if (elements == 0) return;
  switch (fromDtype) {
    case DType::f32: return convertFrom<float>(context, from, scale, elements, columns, to, toDtype);
    case DType::bf16: return convertFrom<uint16_t>(context, from, scale, elements, columns, to, toDtype);
    case DType::f8e4m3: return convertFrom<Fp8>(context, from, scale, elements, columns, to, toDtype);
    default: throw Error("INTERNAL", std::string("cannot convert from ") + nameOf(fromDtype));
  }
}

}  // namespace longcat::cuda
