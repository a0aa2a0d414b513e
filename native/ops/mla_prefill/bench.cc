// mla_prefill with the attention of each model: a whole prompt, and a prompt's rows behind a cached prefix. Floor: cache rows and W_kvb once;
// operations of expanding every key once and of the causal triangle.
#include <algorithm>
#include <cmath>

#include "ops/harness_bench.h"
#include "ops/mla_prefill/params.h"
#include "ops/step_plan/params.h"

using namespace longcat;

namespace {

constexpr int64_t kBlockSize = 64;

void prefill(BenchContext& b, const ModelShape* m, DType dtype, const bench::Weight& kvB, int64_t T, int64_t before, bool packed) {
  const int64_t keys = before + T, tiles = (keys + kKeyTile - 1) / kKeyTile, blocks = (keys + kBlockSize - 1) / kBlockSize;
  const double pairs = (static_cast<double>(keys) * static_cast<double>(keys + 1) - static_cast<double>(before) * static_cast<double>(before + 1)) / 2;
  const double flops = 2.0 * static_cast<double>(m->heads) *
                       (static_cast<double>(keys) * static_cast<double>(m->kvRank * (m->nope + m->vDim)) + pairs * static_cast<double>(m->head() + m->vDim));
  if (b.tooMuch(flops)) return;
  std::vector<int32_t> positions, table, count(8);
  for (int64_t i = 0; i < T; ++i) positions.push_back(static_cast<int32_t>(before + i));
  for (int64_t i = 0; i < blocks; ++i) table.push_back(static_cast<int32_t>(blocks - 1 - i));
  count[numRows] = count[numPrefillRows] = static_cast<int32_t>(T), count[numSequences] = count[numPrefillSequences] = 1;
  const Tensor q = b.randomActivations({T, m->heads, m->head()}), cache = b.latentCache(*m, packed, blocks, kBlockSize);
  const Tensor position = b.i32({T}, positions), start = b.i32({2}, {0, static_cast<int32_t>(T)}), slot = b.i32({1}), tables = b.i32({1, blocks}, table);
  const Tensor counts = b.i32({8}, count), out = b.activations({T, m->heads * m->vDim}), state = b.empty(DType::f32, {T, m->heads, 2});
  const int64_t expandedRows = std::min<int64_t>(tiles * kKeyTile, 8192);
  const Tensor expanded = b.activations({expandedRows, m->heads, m->nope + m->vDim}), accumulator = b.empty(DType::f32, {T, m->heads, m->vDim});
  const Tensor latents = b.activations({expandedRows, m->latent()});
  const Tensor roundPlan = b.i32({roundPlanNumbers(T, 1, expandedRows)});
  const double rows = static_cast<double>(T * m->heads * (m->head() + m->vDim)) * static_cast<double>(bytesOf(b.activation()));
  const double bytes = static_cast<double>(keys) * b.latentBytes(*m, packed) + rows + kvB.bytes();
  b.time({m, (before ? "after " + std::to_string(before) : "whole prompt") + (packed ? ", packed" : ""), T, shortName(dtype), bytes, flops}, "mla_prefill",
         args({&q, &cache, &kvB.data, kvB.scales(), &position, &start, &slot, &tables, &counts, &out, &state, &expanded, &accumulator, &roundPlan,
                &latents},
              {static_cast<double>(m->heads), static_cast<double>(m->nope), static_cast<double>(m->rope), static_cast<double>(m->vDim),
               1 / std::sqrt(static_cast<double>(m->head())), static_cast<double>(tiles * kKeyTile)}));
}

}  // namespace

LONGCAT_BENCH(mla_prefill) {
  for (const ModelShape* m : b.models()) {
    for (DType dtype : b.weightDtypes(*m)) {
      const bench::Weight kvB = b.weight(dtype, m->heads * (m->nope + m->vDim), m->kvRank);
      for (int64_t T : b.tokens()) {
        const int64_t before = b.onGpu() ? 16384 : 512;
        if (T > 4) prefill(b, m, dtype, kvB, T, 0, false);
        if (T < 64) continue;
        prefill(b, m, dtype, kvB, T, before, false);
        if (dtype == b.weightDtypes(*m).front()) prefill(b, m, dtype, kvB, T, before, true);
      }
    }
  }
}
