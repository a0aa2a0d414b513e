// moe_route_backward at mini's router. Floor: classifier read, its gradient read and written, rows once; four operations a weight and row.
#include "ops/bench_training.h"

using namespace longcat;
using namespace longcat::bench;

LONGCAT_BENCH(moe_route_backward) {
  for (const ModelShape* m : trainedModels(b)) {
    const int64_t all = m->experts + m->zeroExperts, hidden = m->hidden, K = m->topK;
    const Tensor classifier = f32(b, {all, hidden}), dClassifier = f32(b, {all, hidden});
    for (int64_t T : b.tokens()) {
      const double flops = 4 * number(T) * number(all * hidden);
      if (b.tooMuch(flops)) continue;
      std::vector<int32_t> chosen;
      for (int64_t i = 0; i < T * K; ++i) chosen.push_back(static_cast<int32_t>((i / K * 7 + i % K * 5) % all));
      const Tensor h = f32(b, {T, hidden}), scores = b.random(DType::f32, {T, all}, 0, 1), ids = b.i32({T, K}, chosen), dWeights = f32(b, {T, K});
      const Tensor dH = f32(b, {T, hidden}), dLogits = room(b, {T, all}), rows = live(b, T);
      b.time({m, std::to_string(all) + " experts", T, "f32", bytesOfFloats(3 * number(all * hidden) + number(T * (3 * hidden + all))), flops},
             "moe_route_backward", args({&h, &classifier, &dClassifier, &scores, &ids, &dWeights, nullptr, &dH, &dLogits, &rows}, {2.5}));
    }
  }
}
