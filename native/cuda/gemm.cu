// Which kernel computes a product. Kind of arithmetic by shape, dtype and alignment alone: tensor cores (gemm_formats.cuh has their order
// of summation) or float32 (gemm_generic.cu has its). Within a kind the number of rows chooses, and the bits are the same. On
// compute capability 9.0 tensor cores have two orders: Hopper's kernels', and, where those refuse for groups, k or the card, the others'.
#include "cuda/gemm.h"

#include "cuda/gemm_variants.h"
#include "cuda/gemm_work.cuh"
#include "cuda/hopper/gemm_many.h"

namespace longcat::cuda {
namespace {

bool aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

/// Tensor cores read 16 bytes at a time. A stack's parts are allocations of their own, aligned as such.
bool tensorCores(const GemmProblem& p) {
  const DType dtype = weightDtypeOf(p);
  if (p.activation != DType::bf16 || dtype == DType::f32) return false;
  const bool whole = depthOf(p) % (dtype == DType::f8e4m3 ? kFp8Block : 32) == 0;
  return whole && aligned(p.x.data) && p.xStride % 8 == 0 && (p.groupStart || (aligned(p.weight.data) && aligned(p.weight2.data)));
}

}  // namespace

void gemm(const CudaContext& context, const GemmProblem& p) {
  if (p.capacity <= 0 || outputsOf(p) <= 0) return;
  if (tensorCores(p)) {
    const int64_t rows = expectedRows(p);
    const bool fp8 = weightDtypeOf(p) == DType::f8e4m3, quantised = fp8 && context.fp8Activations;
    if (context.capability == 90) {  // both sum alike, and what few refuses (too many groups) many refuses before it
      const bool many = rows > (p.groupStart && !fp8 ? 32 : 64);  // bf16 groups of uneven sizes: some have twice as many
      if (many && (quantised ? manyFp8Quantised(context, p) : fp8 ? manyFp8Ordered(context, p) : manyBf16(context, p, rows))) return;
      const auto few = quantised ? fewFp8Quantised : fp8 ? fewFp8 : fewBf16;
      if (few(context, p, rows)) return;
    }
    const auto stream = quantised ? streamFp8Quantised : fp8 ? streamFp8 : streamBf16;
    const auto tile = quantised ? tileFp8Quantised : fp8 ? tileFp8 : tileBf16;
    if (stream(context, p, rows) || tile(context, p, rows)) return;
  }
  gemmGeneric(context, p);
}

void useAhead(GemmProblem& p, void* rows, int64_t stride) {
  p.ahead = static_cast<unsigned char*>(rows);
  p.aheadStride = stride * bytesOf(DType::bf16);
}

GemmProblem denseProblem(ConstActivations x, int64_t xStride, DType activation, const int32_t* liveRows, int64_t capacity, const WeightView& weight,
                         Activations out, int64_t outStride, DType outDtype) {
  GemmProblem p;
  p.x = x;
  p.xStride = xStride;
  p.activation = activation;
  p.liveRows = liveRows;
  p.capacity = capacity;
  p.weight = weight;
  p.out = out;
  p.outStride = outStride;
  p.outDtype = outDtype;
  return p;
}

}  // namespace longcat::cuda
