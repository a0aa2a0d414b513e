// mla_decode with the attention of each model: a batch of sequences of one context. Floor: the cache rows of all sequences and W_kvb once;
// operations of the absorbed form.
#include <cmath>

#include "ops/harness_bench.h"
#include "ops/mla_decode/params.h"
#include "ops/step_plan/params.h"

using namespace longcat;

namespace {

constexpr int64_t kBlockSize = 64;

void decodeAt(BenchContext& b, const ModelShape* m, DType dtype, const bench::Weight& kvB, int64_t T, int64_t context, bool packed) {
  const int64_t blocksEach = (context + kBlockSize - 1) / kBlockSize, splitsEach = (context + kSplitKeys - 1) / kSplitKeys;
  std::vector<int32_t> tables, positions, slots, splits, count(8);
  for (int32_t r = 0; r < T; ++r) {
    positions.push_back(static_cast<int32_t>(context - 1)), slots.push_back(r);
    for (int64_t i = 0; i < blocksEach; ++i) tables.push_back(static_cast<int32_t>(i * T + r));  // a sequence's blocks lie apart
    for (int32_t i = 0; i < splitsEach; ++i) splits.insert(splits.end(), {r, i});
  }
  count[numRows] = count[numSequences] = static_cast<int32_t>(T), count[numSplits] = static_cast<int32_t>(T * splitsEach);
  const Tensor q = b.randomActivations({T, m->heads, m->head()}), cache = b.latentCache(*m, packed, T * blocksEach, kBlockSize);
  const Tensor position = b.i32({T}, positions), slot = b.i32({T}, slots), table = b.i32({T, blocksEach}, tables), counts = b.i32({8}, count);
  const Tensor split = b.i32({T * splitsEach, 2}, splits), qLatent = b.activations({T, m->heads, m->kvRank});
  const Tensor partial = b.empty(DType::f32, {T * splitsEach, m->heads, m->kvRank + 2}), out = b.activations({T, m->heads * m->vDim});
  const auto keys = static_cast<double>(T * context);
  const double bytes = keys * b.latentBytes(*m, packed) + kvB.bytes();
  const double flops = 2.0 * static_cast<double>(m->heads) *
                       (static_cast<double>(T * m->kvRank * (m->nope + m->vDim)) + keys * static_cast<double>(m->latent() + m->kvRank));
  if (b.tooMuch(flops)) return;
  b.time({m, "context " + std::to_string(context) + (packed ? ", packed" : ""), T, shortName(dtype), bytes, flops}, "mla_decode",
         args({&q, &cache, &kvB.data, kvB.scales(), &position, &slot, &table, &counts, &split, &qLatent, &partial, &out},
              {static_cast<double>(m->heads), static_cast<double>(m->nope), static_cast<double>(m->rope), static_cast<double>(m->vDim),
               1 / std::sqrt(static_cast<double>(m->head()))}));
}

}  // namespace

LONGCAT_BENCH(mla_decode) {
  const double mostKeys = b.onGpu() ? 4.2e6 : 2e4;
  for (const ModelShape* m : b.models()) {
    for (DType dtype : b.weightDtypes(*m)) {
      const bench::Weight kvB = b.weight(dtype, m->heads * (m->nope + m->vDim), m->kvRank);
      for (int64_t T : b.tokens(256)) {
        for (int64_t context : {1024, 4096, 16384, 32768}) {
          if (static_cast<double>(T * context) > mostKeys) continue;
          decodeAt(b, m, dtype, kvB, T, context, false);
          if (dtype == b.weightDtypes(*m).front()) decodeAt(b, m, dtype, kvB, T, context, true);
        }
      }
    }
  }
}
