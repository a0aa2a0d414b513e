// mla_prefill_backward on the CPU. A task takes one head of one sequence: it expands a tile of keys and values, lets the tiles of query
// rows pass that may see it, and goes on to the next. Gradients of keys and values are whole after their tile; a query's grow by one
// product a tile, ascending. Then, over all heads: W_kvb's gradient, and the latents'.
#include "ops/mla_prefill/backward/params.h"

#include "cpu/gemm.h"
#include "cpu/gemm_gradients.h"
#include "ops/step_plan/params.h"

namespace longcat::LONGCAT_ISA {
namespace {

constexpr int64_t kTile = kBackwardTile;

/// One head of one sequence, and one thread's scratch.
struct Head {
  const MlaPrefillBackwardParams& p;
  int64_t head, first, length;  // of the sequence: its first row, its rows
  float *keys, *values, *weights, *dScores;

  int64_t queryWidth() const { return p.nope + p.rope; }
  int64_t expandedWidth() const { return p.nope + p.vDim; }
  Rows queries(int64_t position) const { return {p.q + ((first + position) * p.heads + head) * queryWidth(), p.heads * queryWidth()}; }
  Rows dOuts(int64_t position) const { return {p.dOut + ((first + position) * p.heads + head) * p.vDim, p.heads * p.vDim}; }
  const float* out(int64_t position) const { return p.out + ((first + position) * p.heads + head) * p.vDim; }
  const float* state(int64_t position) const { return p.state + ((first + position) * p.heads + head) * 2; }
  float* dQuery(int64_t position) const { return p.dQ + ((first + position) * p.heads + head) * queryWidth(); }
  float* dExpanded(int64_t position) const { return p.dExpanded + ((first + position) * p.heads + head) * expandedWidth(); }
  float* dRopeKey(int64_t position) const { return p.dRopeKeys + ((first + position) * p.heads + head) * p.rope; }
};

float dot(const float* a, const float* b, int64_t n) {
  Vec total = zero();
  forLanes(n, [&](int64_t k, int lanes) { total = fma(loadN(a + k, lanes), loadN(b + k, lanes), total); });
  return sum(total);
}

/// Keys and values of positions [start, start + count).
void expandTile(const Head& h, int64_t start, int64_t count) {
  const MlaPrefillBackwardParams& p = h.p;
  const int64_t width = p.kvRank + p.rope, begin = h.head * h.expandedWidth(), middle = begin + p.nope;
  const float* latents = p.latents + (h.first + start) * width;
  gemm(latents, width, nullptr, count, p.kvB.weight, begin, middle, h.keys - begin, h.queryWidth());  // gemm counts columns from output 0
  gemm(latents, width, nullptr, count, p.kvB.weight, middle, middle + p.vDim, h.values - middle, p.vDim);
  for (int64_t j = 0; j < count; ++j) {
    const float* ropeKey = latents + j * width + p.kvRank;
    for (int64_t d = 0; d < p.rope; ++d) h.keys[j * h.queryWidth() + p.nope + d] = ropeKey[d];
  }
}

/// A row's scores and dP of `count` keys to P and dS, of which the query at `position` sees `seen`.
void weighRow(const Head& h, int64_t position, float* weights, float* dScores, int64_t seen, int64_t count) {
  const float* state = h.state(position);
  const Vec scale = set1(h.p.softmaxScale), maximum = set1(state[0]), total = set1(state[1]);
  const Vec common = set1(dot(h.dOuts(position).data, h.out(position), h.p.vDim));
  forLanes(seen, [&](int64_t j, int n) {
    const Vec weight = div(exp(sub(mul(loadN(weights + j, n), scale), maximum)), total);
    storeN(dScores + j, mul(mul(weight, sub(loadN(dScores + j, n), common)), scale), n);
    storeN(weights + j, weight, n);
  });
  for (int64_t j = seen; j < count; ++j) weights[j] = dScores[j] = 0;
}

/// The tile of `rows` queries from `position` on meets the tile of `count` keys from `start` on.
void passTile(const Head& h, int64_t position, int64_t rows, int64_t start, int64_t count) {
  const MlaPrefillBackwardParams& p = h.p;
  const Rows queries = h.queries(position), dOuts = h.dOuts(position), weights{h.weights, kTile}, dScores{h.dScores, kTile};
  const WeightView keys{h.keys, nullptr, count, h.queryWidth(), DType::f32}, values{h.values, nullptr, count, p.vDim, DType::f32};
  gemm(queries.data, queries.stride, nullptr, rows, keys, 0, count, h.weights, kTile);
  gemm(dOuts.data, dOuts.stride, nullptr, rows, values, 0, count, h.dScores, kTile);
  for (int64_t i = 0; i < rows; ++i)
    weighRow(h, position + i, h.weights + i * kTile, h.dScores + i * kTile, smaller(count, position + i + 1 - start), count);

  const bool firstQueries = position == start, firstKeys = start == 0;
  const int64_t expandedStride = p.heads * h.expandedWidth();
  gemmTN(weights, 0, count, rows, dOuts, p.vDim, {h.dExpanded(start) + p.nope, expandedStride, !firstQueries});
  gemmTN(dScores, 0, count, rows, queries, p.nope, {h.dExpanded(start), expandedStride, !firstQueries});
  gemmTN(dScores, 0, count, rows, {queries.data + p.nope, queries.stride}, p.rope, {h.dRopeKey(start), p.heads * p.rope, !firstQueries});
  gemmNN(dScores, rows, count, {h.keys, h.queryWidth()}, h.queryWidth(), {h.dQuery(position), p.heads * h.queryWidth(), !firstKeys});
}

void headBack(const Head& h) {
  for (int64_t start = 0; start < h.length; start += kTile) {
    const int64_t count = smaller(kTile, h.length - start);
    expandTile(h, start, count);
    for (int64_t position = start; position < h.length; position += kTile)
      passTile(h, position, smaller(kTile, h.length - position), start, count);
  }
}

/// From what the heads left: through W_kvb to the latents, and the rope key's gradient summed over heads.
void latentsBack(const MlaPrefillBackwardParams& p, const CpuContext& context, int64_t rows) {
  const int64_t width = p.kvRank + p.rope, expanded = p.kvB.weight.rows;
  const Rows dExpanded{p.dExpanded, expanded};
  gemmTNParallel(context, dExpanded, expanded, rows, {p.latents, width}, p.kvRank, {p.kvB.gradient, p.kvRank, true});
  gemmNNParallel(context, dExpanded, rows, expanded, {p.kvB.values(), p.kvRank}, p.kvRank, {p.dLatents, width});
  forRows(context, rows, p.heads * p.rope, [&](int64_t first, int64_t end, int) {
    for (int64_t r = first; r < end; ++r) {
      const float* heads = p.dRopeKeys + r * p.heads * p.rope;
      forLanes(p.rope, [&](int64_t k, int n) {
        Vec total = loadN(heads + k, n);
        for (int64_t h = 1; h < p.heads; ++h) total = add(total, loadN(heads + h * p.rope + k, n));
        storeN(p.dLatents + r * width + p.kvRank + k, total, n);
      });
    }
  });
}

}  // namespace

void mla_prefill_backward(const void* params, const CpuContext& context) {
  const auto& p = *static_cast<const MlaPrefillBackwardParams*>(params);
  const int64_t rows = smaller(p.counts[numPrefillRows], p.capacity), sequences = smaller(p.counts[numPrefillSequences], p.maxSequences);
  if (rows <= 0 || sequences <= 0) return;
  const MlaPrefillBackwardScratch layout = mlaPrefillBackwardScratch(p);
  forTasks(context, sequences * p.heads, [&](int64_t task, int thread) {
    const int64_t s = task / p.heads, first = p.seqStart[s];
    float* scratch = context.scratch<float>(thread);
    headBack({p, task % p.heads, first, smaller(p.seqStart[s + 1], rows) - first, scratch + layout.keys, scratch + layout.values,
              scratch + layout.weights, scratch + layout.dScores});
  });
  latentsBack(p, context, rows);
}

}  // namespace longcat::LONGCAT_ISA
