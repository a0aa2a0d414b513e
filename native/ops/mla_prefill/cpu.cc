// mla_prefill on the CPU. A task takes one head of one sequence: it expands a tile of keys and values, lets every query row that may
// see it pass, and goes on to the next tile. A row's running maximum and sum are in `state`, its unnormalised output is in `out`.
//
// Every number is one chain: a score along the head's width, an output along the keys. Which rows pass side by side does not matter.
#include "ops/mla_prefill/params.h"

#include <math.h>

#include "cpu/gemm.h"
#include "cpu/latents.h"
#include "ops/mla_prefill/plan.h"
#include "ops/step_plan/params.h"

namespace longcat::LONGCAT_ISA {
namespace {

#if LONGCAT_AVX512
constexpr int kColumns = 4;  // vectors side by side for each query row: with 4 rows, 16 sums in 32 registers
#else
constexpr int kColumns = 2;
#endif
constexpr int64_t kStep = kColumns * kLanes;
static_assert(kPartKeys % kStep == 0);

/// One head of one sequence, and one thread's scratch.
struct Head {
  const MlaPrefillParams& p;
  int64_t head, slot;
  float* keys;
  float* expanded;
  float* scores;
  int32_t* rowIndex;
  float* rows;

  int64_t queryWidth() const { return p.nope + p.rope; }
  int64_t expandedWidth() const { return p.nope + p.vDim; }
  const float* query(int64_t row) const { return p.q + (row * p.heads + head) * queryWidth(); }
  float* out(int64_t row) const { return p.out + (row * p.heads + head) * p.vDim; }
  float* state(int64_t row) const { return p.state + (row * p.heads + head) * 2; }
  const float* values() const { return expanded + p.nope; }
};

/// Keys (transposed) and values of positions [tileStart, tileStart + count).
void expandTile(const Head& h, int64_t tileStart, int64_t count) {
  const MlaPrefillParams& p = h.p;
  const int64_t width = p.kvRank + p.rope, outputs = h.expandedWidth(), begin = h.head * outputs;
  for (int64_t j = 0; j < count; ++j) {
    const int64_t position = tileStart + j;
    const int64_t block = p.blockTables[h.slot * p.maxBlocks + position / p.blockSize];
    h.rowIndex[j] = static_cast<int32_t>(block * p.blockSize + position % p.blockSize);
  }
  const float* rows = p.cache;
  if (p.packedCache) {
    for (int64_t j = 0; j < count; ++j) {
      unpackRow(p.packedRow(h.rowIndex[j]), p.kvRank, p.rope, h.rows + j * width);
      h.rowIndex[j] = static_cast<int32_t>(j);
    }
    rows = h.rows;
  }
  gemm(rows, width, h.rowIndex, count, p.kvB, begin, begin + outputs, h.expanded - begin, outputs);
  for (int64_t d = 0; d < p.nope; ++d) {
    float* line = h.keys + d * kPartKeys;
    for (int64_t j = 0; j < count; ++j) line[j] = h.expanded[j * outputs + d];
    for (int64_t j = count; j < kPartKeys; ++j) line[j] = 0;
  }
  for (int64_t d = 0; d < p.rope; ++d) {
    float* line = h.keys + (p.nope + d) * kPartKeys;
    for (int64_t j = 0; j < count; ++j) line[j] = rows[h.rowIndex[j] * width + p.kvRank + d];
    for (int64_t j = count; j < kPartKeys; ++j) line[j] = 0;
  }
}

/// scores[q][j] = query of row + q · key j, for all keys below `count` (and some beyond, to be overwritten).
template <int Q>
void scoreRows(const Head& h, int64_t row, int64_t count) {
  const int64_t depth = h.queryWidth(), rowStride = h.p.heads * depth;
  const float* query = h.query(row);
  for (int64_t j = 0; j < count; j += kStep) {
    Vec acc[Q][kColumns];
    for (int q = 0; q < Q; ++q)
      for (int c = 0; c < kColumns; ++c) acc[q][c] = zero();
    const float* key = h.keys + j;
    for (int64_t d = 0; d < depth; ++d, key += kPartKeys) {
      Vec k[kColumns];
      for (int c = 0; c < kColumns; ++c) k[c] = load(key + c * kLanes);
      for (int q = 0; q < Q; ++q) {
        const Vec a = set1(query[q * rowStride + d]);
        for (int c = 0; c < kColumns; ++c) acc[q][c] = fma(a, k[c], acc[q][c]);
      }
    }
    for (int q = 0; q < Q; ++q)
      for (int c = 0; c < kColumns; ++c) store(h.scores + q * kPartKeys + j + c * kLanes, acc[q][c]);
  }
}

/// Turns `count` scores of a row to weights exp(score − maximum), updates its state, and gives the factor of what was summed before.
float weigh(const Head& h, int64_t row, float* scores, int64_t count, bool first) {
  for (int64_t j = count; j < kPartKeys; ++j) scores[j] = -INFINITY;
  const Vec scale = set1(h.p.softmaxScale);
  Vec most = set1(-INFINITY);
  for (int64_t j = 0; j < kPartKeys; j += kLanes) {
    const Vec s = mul(load(scores + j), scale);
    store(scores + j, s);
    most = max(s, most);
  }
  float* state = h.state(row);
  const float before = first ? -INFINITY : state[0];
  const float tileMaximum = maxLane(most);
  const float maximum = tileMaximum > before ? tileMaximum : before;
  Vec total = zero();
  for (int64_t j = 0; j < kPartKeys; j += kLanes) {
    const Vec e = exp(sub(load(scores + j), set1(maximum)));
    store(scores + j, e);
    total = add(total, e);
  }
  float factor[kLanes];
  store(factor, exp(set1(before - maximum)));
  state[0] = maximum;
  state[1] = first ? sum(total) : state[1] * factor[0] + sum(total);
  return factor[0];
}

/// out[row + q] = (fresh ? 0 : out · factor[q]) + Σ_{keys [from, to), ascending} weight · value, columns [column, column + C vectors).
template <int Q, int C>
LONGCAT_INLINE void sumColumns(const Head& h, int64_t row, const float* weights, int64_t from, int64_t to, const float* factor, bool fresh,
                               int64_t column, int lastLanes) {
  const int64_t outStride = h.p.heads * h.p.vDim, valueStride = h.expandedWidth();
  float* out = h.out(row) + column;
  const float* value = h.values() + from * valueStride + column;
  Vec acc[Q][C];
  for (int q = 0; q < Q; ++q)
    for (int c = 0; c < C; ++c)
      acc[q][c] = fresh ? zero() : mul(loadN(out + q * outStride + c * kLanes, c + 1 < C ? kLanes : lastLanes), set1(factor[q]));
  for (int64_t j = from; j < to; ++j, value += valueStride) {
    Vec v[C];
    for (int c = 0; c < C; ++c) v[c] = loadN(value + c * kLanes, c + 1 < C ? kLanes : lastLanes);
    for (int q = 0; q < Q; ++q) {
      const Vec weight = set1(weights[q * kPartKeys + j]);
      for (int c = 0; c < C; ++c) acc[q][c] = fma(weight, v[c], acc[q][c]);
    }
  }
  for (int q = 0; q < Q; ++q)
    for (int c = 0; c < C; ++c) storeN(out + q * outStride + c * kLanes, acc[q][c], c + 1 < C ? kLanes : lastLanes);
}

template <int Q>
void sumValues(const Head& h, int64_t row, const float* weights, int64_t from, int64_t to, const float* factor, bool fresh) {
  const int64_t width = h.p.vDim;
  int64_t column = 0;
  for (; column + kStep <= width; column += kStep) sumColumns<Q, kColumns>(h, row, weights, from, to, factor, fresh, column, kLanes);
  for (; column < width; column += kLanes)
    sumColumns<Q, 1>(h, row, weights, from, to, factor, fresh, column, static_cast<int>(smaller(kLanes, width - column)));
}

/// Divides by the sum of weights, once a row has seen its last key.
void finishRow(const Head& h, int64_t row) {
  const Vec total = set1(h.state(row)[1]);
  float* out = h.out(row);
  forLanes(h.p.vDim, [&](int64_t k, int n) { storeN(out + k, div(loadN(out + k, n), total), n); });
}

/// Q rows from `row` on pass the tile that begins at tileStart.
template <int Q>
void passTile(const Head& h, int64_t row, int64_t tileStart) {
  int64_t count[Q], fewest = kPartKeys, most = 0;
  for (int q = 0; q < Q; ++q) {
    count[q] = smaller(kPartKeys, h.p.positions[row + q] + 1 - tileStart);
    fewest = smaller(fewest, count[q]);
    most = count[q] > most ? count[q] : most;
  }
  scoreRows<Q>(h, row, most);
  const bool first = tileStart == 0;
  float factor[Q];
  for (int q = 0; q < Q; ++q) factor[q] = weigh(h, row + q, h.scores + q * kPartKeys, count[q], first);
  sumValues<Q>(h, row, h.scores, 0, fewest, factor, first);
  // On the diagonal each row goes on alone: a key beyond its own position must not even be multiplied by zero.
  const float one = 1.0f;
  for (int q = 0; q < Q; ++q) {
    if (count[q] > fewest) sumValues<1>(h, row + q, h.scores + q * kPartKeys, fewest, count[q], &one, false);
    if (h.p.positions[row + q] < tileStart + kPartKeys) finishRow(h, row + q);
  }
}

/// Rows [begin, end) of one sequence, whose positions ascend.
void attend(const Head& h, int64_t begin, int64_t end) {
  const int64_t keys = h.p.positions[end - 1] + 1;
  int64_t row = begin;
  for (int64_t tileStart = 0; tileStart < keys; tileStart += kPartKeys) {
    while (h.p.positions[row] < tileStart) ++row;
    expandTile(h, tileStart, smaller(kPartKeys, keys - tileStart));
    int64_t r = row;
    for (; r + kQueryRows <= end; r += kQueryRows) passTile<kQueryRows>(h, r, tileStart);
    for (; r < end; ++r) passTile<1>(h, r, tileStart);
  }
}

}  // namespace

void mla_prefill(const void* params, const CpuContext& context) {
  const auto& p = *static_cast<const MlaPrefillParams*>(params);
  const int64_t rows = smaller(p.counts[numPrefillRows], p.capacity), sequences = p.counts[numPrefillSequences];
  if (rows <= 0 || sequences <= 0) return;
  int64_t longest = 1;
  for (int64_t s = 0; s < sequences; ++s) {
    const int64_t chunk = smaller(p.seqStart[s + 1], rows) - p.seqStart[s];
    longest = chunk > longest ? chunk : longest;
  }
  const int64_t taskRows = mlaPrefillTaskRows(longest, sequences, p.heads, context.pool.threads());
  const int64_t groups = (longest + taskRows - 1) / taskRows;
  const MlaPrefillScratch layout = mlaPrefillScratch(p);
  forTasks(context, sequences * p.heads * groups, [&](int64_t task, int thread) {
    const int64_t group = groups - 1 - task / p.heads % groups;  // the last rows see the most keys: they go first
    const int64_t s = task / p.heads / groups;
    const int64_t begin = p.seqStart[s] + group * taskRows;
    const int64_t end = smaller(begin + taskRows, smaller(p.seqStart[s + 1], rows));
    if (begin >= end) return;
    float* scratch = context.scratch<float>(thread);
    attend({p, task % p.heads, p.seqSlot[s], scratch + layout.keys, scratch + layout.expanded, scratch + layout.scores,
            reinterpret_cast<int32_t*>(scratch + layout.rowIndex), scratch + layout.rows},
           begin, end);
  });
}

}  // namespace longcat::LONGCAT_ISA
