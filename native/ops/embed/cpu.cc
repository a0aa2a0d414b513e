// embed on the CPU: rows of the table, widened to float.
#include "ops/embed/params.h"

#include "cpu/math.h"

namespace longcat::LONGCAT_ISA {
namespace {

template <class E>
void gather(const EmbedParams& p, int64_t first, int64_t end) {
  const int64_t hidden = p.table.columns;
  for (int64_t t = first; t < end; ++t) {
    const E* from = static_cast<const E*>(p.table.data) + p.tokens[t] * hidden;
    float* to = p.out + t * p.outStride;
    forLanes(hidden, [&](int64_t k, int n) { storeN(to + k, loadN(from + k, n), n); });
  }
}

}  // namespace

void embed(const void* params, const CpuContext& context) {
  const auto& p = *static_cast<const EmbedParams*>(params);
  forRows(context, liveRows(p.rows, p.capacity), p.table.columns, [&](int64_t first, int64_t end, int) {
    if (p.table.dtype == DType::bf16) gather<Bf16>(p, first, end);
    else gather<float>(p, first, end);
  });
}

}  // namespace longcat::LONGCAT_ISA
