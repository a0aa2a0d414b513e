// balance_loss at mini's router, four groups. Floor: probabilities and ids read.
#include "ops/bench_training.h"

using namespace longcat;
using namespace longcat::bench;

LONGCAT_BENCH(balance_loss) {
  for (const ModelShape* m : trainedModels(b)) {
    const int64_t all = m->experts + m->zeroExperts, K = m->topK, groups = 4;
    for (int64_t T : b.tokens()) {
      std::vector<int32_t> chosen;
      for (int64_t i = 0; i < T * K; ++i) chosen.push_back(static_cast<int32_t>(i % all));
      const Tensor scores = b.random(DType::f32, {T, all}, 0, 1), ids = b.i32({T, K}, chosen), loss = room(b, {1}), share = room(b, {groups + 1});
      const Tensor probability = room(b, {groups + 1}), dScore = room(b, {all}), rows = live(b, T);
      b.time({m, std::to_string(all) + " experts", T, "", bytesOfFloats(number(T * (all + K))), number(T * (all + K))}, "balance_loss",
             args({&scores, &ids, &loss, &share, &probability, &dScore, &rows}, {number(m->experts), number(groups), number(K) * 2 / 3, 0.001}));
    }
  }
}
