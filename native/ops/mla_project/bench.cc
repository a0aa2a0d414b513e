// mla_project with the attention of each model. Floor: its three matrices' bytes at few rows, their products at many.
#include <algorithm>

#include "ops/harness_bench.h"

using namespace longcat;

LONGCAT_BENCH(mla_project) {
  const int64_t blockSize = 64;
  for (const ModelShape* m : b.models()) {
    for (DType dtype : b.weightDtypes(*m)) {
      const int64_t outputs = m->heads * m->head();
      const bench::Weight qA = b.weight(dtype, m->qRank, m->hidden), qB = b.weight(dtype, outputs, m->qRank), kvA = b.weight(dtype, m->latent(), m->hidden);
      const Tensor qNorm = b.random(DType::bf16, {1, m->qRank}, 0.5f, 1.5f), kvNorm = b.random(DType::bf16, {1, m->kvRank}, 0.5f, 1.5f);
      for (int64_t T : b.tokens()) {
        const double weights = static_cast<double>((m->qRank + m->latent()) * m->hidden + outputs * m->qRank), flops = 2 * weights * static_cast<double>(T);
        if (b.tooMuch(flops)) continue;
        const int64_t blocks = (T + blockSize - 1) / blockSize;
        std::vector<int32_t> position, table;
        for (int64_t i = 0; i < T; ++i) position.push_back(static_cast<int32_t>(i));
        for (int64_t i = 0; i < blocks; ++i) table.push_back(static_cast<int32_t>(i));
        const Tensor x = b.randomActivations({T, m->hidden}), cosSin = b.random(DType::f32, {T, m->rope}), positions = b.i32({T}, position), slots = b.i32({T});
        const Tensor tables = b.i32({1, blocks}, table), qLatent = b.activations({T, m->qRank}), kvLatent = b.activations({T, m->latent()});
        const Tensor lanes = b.empty(DType::f32, {8, std::min<int64_t>(T, 256), m->qRank + m->latent()});
        const Tensor q = b.activations({T, m->heads, m->head()}), cache = b.activations({blocks, blockSize, m->latent()});
        const Tensor rows = b.i32({1}, {static_cast<int32_t>(T)});
        const double bytes = qA.bytes() + qB.bytes() + kvA.bytes() + static_cast<double>(T * (m->hidden + outputs + m->latent())) * static_cast<double>(bytesOf(b.activation()));
        b.time({m, std::to_string(m->heads) + " heads", T, shortName(dtype), bytes, flops}, "mla_project",
               args({&x, &qA.data, qA.scales(), nullptr, &qNorm, &qB.data, qB.scales(), &kvA.data, kvA.scales(), nullptr, &kvNorm, &cosSin, &positions, &slots,
                     &tables, &qLatent, &kvLatent, &lanes, &q, &cache, &rows},
                    {static_cast<double>(m->heads), static_cast<double>(m->nope), static_cast<double>(m->rope), 1e-6, 2, 3.46}));
      }
    }
  }
}
