// token_logprobs at each model's vocabulary. Floor: the logits' bytes.
#include "ops/harness_bench.h"

using namespace longcat;

LONGCAT_BENCH(token_logprobs) {
  for (const ModelShape* m : b.models()) {
    for (int64_t T : b.tokens(b.onGpu() ? 1024 : 16)) {
      const Tensor logits = b.random(DType::f32, {T, m->vocabulary}, -10, 10), target = b.i32({T}), out = b.empty(DType::f32, {T});
      const Tensor rows = b.i32({1}, {static_cast<int32_t>(T)});
      b.time({m, "vocabulary " + std::to_string(m->vocabulary), T, "", 4.0 * static_cast<double>(T * m->vocabulary), 0}, "token_logprobs",
             args({&logits, &target, &out, &rows}));
    }
  }
}
