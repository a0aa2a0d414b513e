// linear on the CPU: one product, then the bias over its outputs.
#include "ops/linear/params.h"

#include "cpu/gemm.h"
#include "cpu/math.h"

namespace longcat::LONGCAT_ISA {
namespace {

template <class E>
void addBias(const LinearParams& p, const E* bias, int64_t first, int64_t end) {
  for (int64_t r = first; r < end; ++r) {
    float* out = p.out + r * p.outStride;
    forLanes(p.bias.columns, [&](int64_t k, int n) { storeN(out + k, add(loadN(out + k, n), loadN(bias + k, n)), n); });
  }
}

}  // namespace

void linear(const void* params, const CpuContext& context) {
  const auto& p = *static_cast<const LinearParams*>(params);
  const int64_t rows = liveRows(p.rows, p.capacity);
  gemmParallel(context, p.x, p.xStride, p.rowIndex, rows, p.weight, p.out, p.outStride);
  if (!p.bias.data) return;
  forRows(context, rows, p.bias.columns, [&](int64_t first, int64_t end, int) {
    if (p.bias.dtype == DType::bf16) addBias(p, static_cast<const Bf16*>(p.bias.data), first, end);
    else addBias(p, static_cast<const float*>(p.bias.data), first, end);
  });
}

}  // namespace longcat::LONGCAT_ISA
