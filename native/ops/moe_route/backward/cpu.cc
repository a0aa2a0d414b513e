// moe_route_backward on the CPU: the softmax row by row, then the two products.
#include "ops/moe_route/backward/params.h"

#include "cpu/gemm_gradients.h"

namespace longcat::LONGCAT_ISA {
namespace {

/// dLogits of row r.
void softmaxBack(const MoeRouteBackwardParams& p, int64_t r) {
  const int64_t all = p.classifier.weight.rows;
  const float* scores = p.scores + r * all;
  float* d = p.dLogits + r * all;
  for (int64_t i = 0; i < all; ++i) d[i] = p.dScore ? p.dScore[i] : 0.0f;
  for (int64_t k = r * p.topK; k < (r + 1) * p.topK; ++k) d[p.ids[k]] += p.factor * p.dWeights[k];
  Vec products = zero();
  forLanes(all, [&](int64_t i, int n) { products = fma(loadN(scores + i, n), loadN(d + i, n), products); });
  const Vec common = set1(sum(products));
  forLanes(all, [&](int64_t i, int n) { storeN(d + i, mul(loadN(scores + i, n), sub(loadN(d + i, n), common)), n); });
}

}  // namespace

void moe_route_backward(const void* params, const CpuContext& context) {
  const auto& p = *static_cast<const MoeRouteBackwardParams*>(params);
  const int64_t rows = liveRows(p.rows, p.capacity), all = p.classifier.weight.rows, hidden = p.classifier.weight.columns;
  forRows(context, rows, 3 * all, [&](int64_t first, int64_t end, int) {
    for (int64_t r = first; r < end; ++r) softmaxBack(p, r);
  });
  const Rows dLogits{p.dLogits, all};
  gemmTNParallel(context, dLogits, all, rows, {p.h, hidden}, hidden, {p.classifier.gradient, hidden, true});
  gemmNNParallel(context, dLogits, rows, all, {p.classifier.values(), hidden}, hidden, {p.dH, hidden, true});
}

}  // namespace longcat::LONGCAT_ISA
