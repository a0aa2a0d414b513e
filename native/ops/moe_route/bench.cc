// moe_route with the router of each model. Floor: classifier and rows once, two operations a weight and row.
#include "ops/harness_bench.h"

using namespace longcat;

namespace {

void timeRouter(BenchContext& b, const ModelShape& m, DType dtype) {
  const int64_t all = m.experts + m.zeroExperts, K = m.topK;
  const bench::Weight classifier = b.weight(dtype, all, m.hidden);
  const Tensor bias = b.random(DType::f32, {1, all}, 0, 0.01f);
  for (int64_t T : b.tokens()) {
    const Tensor h = b.randomActivations({T, m.hidden}), scores = b.empty(DType::f32, {T, all}), ids = b.empty(DType::i32, {T, K});
    const Tensor weights = b.empty(DType::f32, {T, K}), identity = b.empty(DType::f32, {T}), count = b.empty(DType::i32, {T});
    const Tensor start = b.empty(DType::i32, {m.experts + 1}), planRow = b.empty(DType::i32, {T * K}), slot = b.empty(DType::i32, {T, K});
    const Tensor rows = b.i32({1}, {static_cast<int32_t>(T)});
    const double flops = 2.0 * static_cast<double>(T * all * m.hidden);
    if (b.tooMuch(flops)) continue;
    const double bytes = classifier.bytes() + static_cast<double>(T * m.hidden) * static_cast<double>(bytesOf(b.activation())) + 4.0 * static_cast<double>(T * all);
    b.time({&m, std::to_string(m.hidden) + " to " + std::to_string(all) + ", top " + std::to_string(K), T, shortName(dtype), bytes, flops}, "moe_route",
           args({&h, &classifier.data, &bias, &scores, &ids, &weights, &identity, &count, &start, &planRow, &slot, &rows},
                {static_cast<double>(m.experts), 6}));
  }
}

}  // namespace

LONGCAT_BENCH(moe_route) {
  for (const ModelShape* m : b.models()) {
    timeRouter(b, *m, b.weightDtypes(*m)[0]);
    if (b.onGpu() && b.activation() == DType::bf16) timeRouter(b, *m, DType::f32);  // checkpoints have routers of either kind
  }
}
