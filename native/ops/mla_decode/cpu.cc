// mla_decode on the CPU, in three passes: absorbed queries; scores and latent sums of each split; merge and values.
//
// A score is one chain along the cache row in vector lanes, a latent's number one chain along the split's keys, ascending.
#include "ops/mla_decode/params.h"

#include <math.h>

#include "cpu/gemm.h"
#include "cpu/latents.h"
#include "ops/mla_decode/plan.h"
#include "ops/step_plan/params.h"

namespace longcat::LONGCAT_ISA {
namespace {

#if LONGCAT_AVX512
constexpr int kColumns = 4;  // vectors of a latent side by side for each head: 16 sums in 32 registers
#else
constexpr int kColumns = 2;
#endif
constexpr int kKeys = 4;  // keys scored side by side

/// A split's keys, and one thread's scratch.
struct Split {
  const MlaDecodeParams& p;
  int64_t index, row;
  int64_t keys;
  const float** keyRow;
  float* scores;
  float* query;
  int64_t width() const { return p.kvRank + p.rope; }
  float* partial(int64_t head) const { return p.partial + (index * p.heads + head) * (p.kvRank + 2); }
};

/// q_lat = q_nope W_k for one head of all decode rows.
void absorbQueries(const MlaDecodeParams& p, int64_t head, int64_t begin, int64_t end) {
  const int64_t queryStride = p.heads * (p.nope + p.rope), weightRow = head * (p.nope + p.vDim);
  gemmTransposed(p.q + begin * queryStride + head * (p.nope + p.rope), queryStride, end - begin, p.kvB, weightRow, weightRow + p.nope,
                 p.qLatent + (begin * p.heads + head) * p.kvRank, p.heads * p.kvRank);
}

/// Fills split.query with [q_lat | q_rope] of H heads.
template <int H>
void gatherQueries(const Split& split, int64_t head) {
  const MlaDecodeParams& p = split.p;
  for (int h = 0; h < H; ++h) {
    const int64_t index = split.row * p.heads + head + h;
    const float* latent = p.qLatent + index * p.kvRank;
    const float* rope = p.q + index * (p.nope + p.rope) + p.nope;
    float* query = split.query + h * split.width();
    for (int64_t k = 0; k < p.kvRank; ++k) query[k] = latent[k];
    for (int64_t k = 0; k < p.rope; ++k) query[p.kvRank + k] = rope[k];
  }
}

/// scores[h][key …] of H heads and K keys.
template <int H, int K>
void scoreKeys(const Split& split, int64_t key) {
  const int64_t width = split.width();
  Vec acc[H][K];
#pragma GCC unroll 4
  for (int h = 0; h < H; ++h)
#pragma GCC unroll 4
    for (int j = 0; j < K; ++j) acc[h][j] = zero();
  const float* const* rows = split.keyRow + key;
  // The rows after these, fetched while these are scored: each comes from far away, and is read once from there.
  const float* const* next = key + 2 * K <= split.keys ? rows + K : rows;
  forLanes(width, [&](int64_t k, int n) {
    Vec rowPart[K];
#pragma GCC unroll 4
    for (int j = 0; j < K; ++j) __builtin_prefetch(next[j] + k);
#pragma GCC unroll 4
    for (int j = 0; j < K; ++j) rowPart[j] = loadN(rows[j] + k, n);
#pragma GCC unroll 4
    for (int h = 0; h < H; ++h) {
      const Vec q = loadN(split.query + h * width + k, n);
#pragma GCC unroll 4
      for (int j = 0; j < K; ++j) acc[h][j] = fma(q, rowPart[j], acc[h][j]);
    }
  });
#pragma GCC unroll 4
  for (int h = 0; h < H; ++h) {
    float* out = split.scores + h * kSplitKeys + key;
    if constexpr (K == 4) sum4(acc[h][0], acc[h][1], acc[h][2], acc[h][3], out);
    else out[0] = sum(acc[h][0]);
  }
}

/// Scores to weights exp(score − maximum); the maximum and the weights' sum go to the partial result.
void weigh(float* scores, int64_t keys, float softmaxScale, float* state) {
  const int64_t padded = (keys + kLanes - 1) / kLanes * kLanes;
  for (int64_t j = keys; j < padded; ++j) scores[j] = -INFINITY;
  const Vec scale = set1(softmaxScale);
  Vec most = set1(-INFINITY);
  for (int64_t j = 0; j < padded; j += kLanes) {
    const Vec s = mul(load(scores + j), scale);
    store(scores + j, s);
    most = max(s, most);
  }
  const float maximum = maxLane(most);
  Vec total = zero();
  for (int64_t j = 0; j < padded; j += kLanes) {
    const Vec e = exp(sub(load(scores + j), set1(maximum)));
    store(scores + j, e);
    total = add(total, e);
  }
  state[0] = maximum;
  state[1] = sum(total);
}

/// o_lat of H heads, columns [column, column + C vectors); `last`: lanes of the last vector.
template <int H, int C>
void sumLatents(const Split& split, int64_t head, int64_t column, int last) {
  Vec acc[H][C];
#pragma GCC unroll 4
  for (int h = 0; h < H; ++h)
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) acc[h][c] = zero();
  for (int64_t j = 0; j < split.keys; ++j) {
    const float* latent = split.keyRow[j] + column;
    Vec part[C];
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) part[c] = c + 1 < C ? load(latent + c * kLanes) : loadN(latent + c * kLanes, last);
#pragma GCC unroll 4
    for (int h = 0; h < H; ++h) {
      const Vec weight = set1(split.scores[h * kSplitKeys + j]);
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) acc[h][c] = fma(weight, part[c], acc[h][c]);
    }
  }
#pragma GCC unroll 4
  for (int h = 0; h < H; ++h)
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) storeN(split.partial(head + h) + column + c * kLanes, acc[h][c], c + 1 < C ? kLanes : last);
}

/// One split of H heads from `head` on.
template <int H>
void attendHeads(const Split& split, int64_t head) {
  const MlaDecodeParams& p = split.p;
  gatherQueries<H>(split, head);
  int64_t key = 0;
  for (; key + kKeys <= split.keys; key += kKeys) scoreKeys<H, kKeys>(split, key);
  for (; key < split.keys; ++key) scoreKeys<H, 1>(split, key);
  for (int h = 0; h < H; ++h) weigh(split.scores + h * kSplitKeys, split.keys, p.softmaxScale, split.partial(head + h) + p.kvRank);
  int64_t column = 0;
  for (; column + kColumns * kLanes <= p.kvRank; column += kColumns * kLanes) sumLatents<H, kColumns>(split, head, column, kLanes);
  for (; column < p.kvRank; column += kLanes) sumLatents<H, 1>(split, head, column, static_cast<int>(smaller(kLanes, p.kvRank - column)));
}

void attendSplit(const MlaDecodeParams& p, int64_t index, int64_t headBegin, int64_t headEnd, float* scratch) {
  const MlaDecodeScratch layout = mlaDecodeScratch(p);
  const int64_t row = p.splits[2 * index], first = p.splits[2 * index + 1] * kSplitKeys;
  const Split split{p, index, row, smaller(kSplitKeys, p.positions[row] + 1 - first), reinterpret_cast<const float**>(scratch + layout.keyRows),
                    scratch + layout.scores, scratch + layout.query};
  const int32_t* blocks = p.blockTables + p.rowSlot[row] * p.maxBlocks;
  for (int64_t j = 0; j < split.keys; ++j) {
    const int64_t position = first + j, row = blocks[position / p.blockSize] * p.blockSize + position % p.blockSize;
    float* unpacked = scratch + layout.rows + j * split.width();
    if (p.packedCache) unpackRow(p.packedRow(row), p.kvRank, p.rope, unpacked);
    split.keyRow[j] = p.packedCache ? unpacked : p.cache + row * split.width();
  }
  int64_t head = headBegin;
  for (; head + kHeadTile <= headEnd; head += kHeadTile) attendHeads<kHeadTile>(split, head);
  if (head + 2 <= headEnd) attendHeads<2>(split, head), head += 2;
  if (head < headEnd) attendHeads<1>(split, head);
}

/// First entry of the split list that belongs to `row` or a later one.
int64_t firstSplit(const MlaDecodeParams& p, int64_t splits, int64_t row) {
  int64_t low = 0, high = splits;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (p.splits[2 * middle] < row) low = middle + 1;
    else high = middle;
  }
  return low;
}

/// The row's latent of one head: Σ splits, ascending, each by exp(its maximum − the greatest), over the sum of weights.
void mergeSplits(const MlaDecodeParams& p, int64_t first, int64_t end, int64_t head, float* merged) {
  const int64_t stride = p.heads * (p.kvRank + 2);
  const float* partial = p.partial + (first * p.heads + head) * (p.kvRank + 2);
  float most = -INFINITY;
  for (int64_t s = 0; s < end - first; ++s) {
    const float maximum = partial[s * stride + p.kvRank];
    most = maximum > most ? maximum : most;
  }
  float total = 0;
  for (int64_t s = 0; s < end - first; ++s) {
    const float* latent = partial + s * stride;
    float factor[kLanes];
    store(factor, exp(set1(latent[p.kvRank] - most)));
    total += factor[0] * latent[p.kvRank + 1];
    forLanes(p.kvRank, [&](int64_t k, int n) {
      const Vec sum = s ? loadN(merged + k, n) : zero();
      storeN(merged + k, fma(set1(factor[0]), loadN(latent + k, n), sum), n);
    });
  }
  forLanes(p.kvRank, [&](int64_t k, int n) { storeN(merged + k, div(loadN(merged + k, n), set1(total)), n); });
}

/// Merge of one head of rows [begin, end), then its values.
void finishHead(const MlaDecodeParams& p, int64_t splits, int64_t head, int64_t begin, int64_t end, float* merged) {
  int64_t split = firstSplit(p, splits, begin);
  for (int64_t row = begin; row < end; ++row) {
    const int64_t first = split;
    while (split < splits && p.splits[2 * split] == row) ++split;
    mergeSplits(p, first, split, head, merged + (row - begin) * p.kvRank);
  }
  const int64_t values = head * (p.nope + p.vDim) + p.nope, outStride = p.heads * p.vDim;
  gemm(merged, p.kvRank, nullptr, end - begin, p.kvB, values, values + p.vDim, p.out + begin * outStride + head * p.vDim - values, outStride);
}

}  // namespace

void mla_decode(const void* params, const CpuContext& context) {
  const auto& p = *static_cast<const MlaDecodeParams*>(params);
  const int64_t rows = liveRows(p.counts + numRows, p.capacity), begin = liveRows(p.counts + numPrefillRows, rows);
  const int64_t splits = liveRows(p.counts + numSplits, p.maxSplits), decoded = rows - begin;
  if (!decoded || !splits) return;
  const int threads = context.pool.threads();

  const int64_t chunks = (decoded + kMergeRows - 1) / kMergeRows;
  const auto rowsOf = [&](int64_t chunk, int64_t* first, int64_t* end) {
    *first = begin + chunk * kMergeRows;
    *end = smaller(*first + kMergeRows, rows);
  };
  forTasks(context, p.heads * chunks, [&](int64_t task, int) {
    int64_t first, end;
    rowsOf(task % chunks, &first, &end);
    absorbQueries(p, task / chunks, first, end);
  });

  const int64_t taskHeads = mlaDecodeTaskHeads(splits, p.heads, threads), groups = (p.heads + taskHeads - 1) / taskHeads;
  forTasks(context, splits * groups, [&](int64_t task, int thread) {
    const int64_t head = task % groups * taskHeads;
    attendSplit(p, task / groups, head, smaller(head + taskHeads, p.heads), context.scratch<float>(thread));
  });

  forTasks(context, p.heads * chunks, [&](int64_t task, int thread) {
    int64_t first, end;
    rowsOf(task % chunks, &first, &end);
    finishHead(p, splits, task / chunks, first, end, context.scratch<float>(thread));
  });
}

}  // namespace longcat::LONGCAT_ISA
