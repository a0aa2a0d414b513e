// mla_project_backward at mini's attention. Floor: weights read, their gradients read and written, rows once; of W_qa and W_kva three products
// (one of them the forward's again), of W_qb two.
#include "ops/bench_training.h"

using namespace longcat;
using namespace longcat::bench;

LONGCAT_BENCH(mla_project_backward) {
  for (const ModelShape* m : trainedModels(b)) {
    const int64_t hidden = m->hidden, qRank = m->qRank, width = m->latent(), queries = m->heads * m->head();
    const Tensor qA = f32(b, {qRank, hidden}), dQA = f32(b, {qRank, hidden}), qANorm = f32(b, {1, qRank}), dQANorm = f32(b, {1, qRank});
    const Tensor qB = f32(b, {queries, qRank}), dQB = f32(b, {queries, qRank}), kvA = f32(b, {width, hidden}), dKvA = f32(b, {width, hidden});
    const Tensor kvANorm = f32(b, {1, m->kvRank}), dKvANorm = f32(b, {1, m->kvRank});
    const double latentWeights = number((qRank + width) * hidden), queryWeights = number(queries * qRank);
    for (int64_t T : b.tokens(4096)) {
      const double flops = 2 * number(T) * (3 * latentWeights + 2 * queryWeights);
      if (b.tooMuch(flops)) continue;
      const Tensor x = f32(b, {T, hidden}), cosSin = f32(b, {T, m->rope}), dQ = f32(b, {T, m->heads, m->head()}), dLatents = f32(b, {T, width});
      const Tensor dX = room(b, {T, hidden}), a = room(b, {T, qRank}), c = room(b, {T, qRank}), dA = room(b, {T, qRank}), kv = room(b, {T, width});
      const Tensor scales = room(b, {2, T}), rows = live(b, T);
      b.time({m, std::to_string(m->heads) + " heads", T, "f32",
              bytesOfFloats(3 * (latentWeights + queryWeights) + number(T * (2 * hidden + width + queries))), flops},
             "mla_project_backward",
             args({&x, &qA, &dQA, nullptr, nullptr, &qANorm, &dQANorm, &qB, &dQB, &kvA, &dKvA, nullptr, nullptr, &kvANorm, &dKvANorm, &cosSin, &dQ, &dLatents,
                   &dX, &a, &c, &dA, &kv, &scales, &rows},
                  {number(m->heads), number(m->nope), number(m->rope), 1e-6, 2, 1}));
    }
  }
}
