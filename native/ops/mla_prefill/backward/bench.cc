// mla_prefill_backward at mini's attention, one sequence. Floor: queries, latents, outputs and their gradients once; five products over the
// causal triangle (scores and dP of them the forward's kind), three with W_kvb.
#include "ops/bench_training.h"
#include "ops/step_plan/params.h"

using namespace longcat;
using namespace longcat::bench;

LONGCAT_BENCH(mla_prefill_backward) {
  for (const ModelShape* m : trainedModels(b)) {
    const int64_t expanded = m->heads * (m->nope + m->vDim), queries = m->heads * m->head(), values = m->heads * m->vDim;
    const Tensor kvB = f32(b, {expanded, m->kvRank}), dKvB = f32(b, {expanded, m->kvRank});
    for (int64_t T : b.tokens(4096)) {
      const double pairs = number(T) * number(T + 1) / 2;
      const double flops = 2 * pairs * number(3 * queries + 2 * values) + 6 * number(T) * number(expanded * m->kvRank);
      if (b.tooMuch(flops)) continue;
      std::vector<int32_t> count(8);
      count[numRows] = count[numPrefillRows] = static_cast<int32_t>(T), count[numSequences] = count[numPrefillSequences] = 1;
      const Tensor q = f32(b, {T, m->heads, m->head()}), latents = f32(b, {T, m->latent()}), start = b.i32({2}, {0, static_cast<int32_t>(T)});
      const Tensor counts = b.i32({8}, count), out = f32(b, {T, values}), state = b.random(DType::f32, {T, m->heads, 2}, 9, 10), dOut = f32(b, {T, values});
      const Tensor dQ = room(b, {T, m->heads, m->head()}), dLatents = room(b, {T, m->latent()}), dExpanded = room(b, {T, expanded});
      const Tensor dRopeKeys = room(b, {T, m->heads * m->rope});
      b.time({m, "one sequence", T, "f32", bytesOfFloats(number(T) * number(2 * queries + 2 * m->latent() + 2 * values) + 3 * number(expanded * m->kvRank)), flops},
             "mla_prefill_backward",
             args({&q, &latents, &kvB, &dKvB, &start, &counts, &out, &state, &dOut, &dQ, &dLatents, &dExpanded, &dRopeKeys},
                  {number(m->heads), number(m->nope), number(m->rope), number(m->vDim), 1 / std::sqrt(number(m->head()))}));
    }
  }
}
