// ngram_embed on a GPU: a row's ids and pieces, its mean, and a step of the projections on tensor cores.
#pragma once

#include "cuda/mma.cuh"
#include "cuda/vectors.cuh"
#include "ops/ngram_embed/params.h"
#include "ops/ngram_embed/plan.h"

namespace longcat::cuda {

__device__ __forceinline__ int64_t tableWidth(const NgramEmbedParams& p) { return p.wordTable.columns / p.numTables; }

/// The row's own token.
__device__ __forceinline__ int32_t tokenOf(const NgramEmbedParams& p, int64_t r) { return p.history[p.rowSlot[r] * p.historyStride + p.positions[r]]; }
__device__ __forceinline__ int32_t idOf(const NgramEmbedParams& p, int64_t r, int table) {
  const NgramTables hash{p.wordTable.rows, p.neighbors, p.splits, p.endId, p.numTables};
  return static_cast<int32_t>(ngramId(p.history + p.rowSlot[r] * p.historyStride, p.positions[r], hash, table / p.splits + 2, p.tables[table].rows));
}

__device__ __forceinline__ float wordOf(const NgramEmbedParams& p, int32_t token, int64_t o) {
  return loadNumber(p.wordTable.data, p.wordTable.dtype, token * p.wordTable.columns + o);
}
/// out[r][o] from the row's word and its projected pieces.
__device__ __forceinline__ void writeMean(const NgramEmbedParams& p, int64_t r, int64_t o, float word, float projected) {
  p.out[r * p.wordTable.columns + o] = __fadd_rn(word, projected) / static_cast<float>(1 + p.numTables);
}

// ---- Tensor cores ----

constexpr int kStep = 32;  // numbers of k a warp takes at once: 16 bytes a lane
constexpr int kParts = 8;  // runs of k

/// The steps of k that a run has.
struct Run {
  int begin, end;
  __device__ Run(const NgramEmbedParams& p, int part) {
    const int steps = static_cast<int>(p.wordTable.columns / kStep);
    begin = steps * part / kParts, end = steps * (part + 1) / kParts;
  }
};

/// Eight numbers of row `id` of the table that has number k of a row's pieces, from k on, bit by bit. kWhole: every table is aligned.
template <bool kWhole>
__device__ __forceinline__ uint4 loadPieces(const NgramEmbedParams& p, int table, int32_t id, int k) {
  const int width = static_cast<int>(tableWidth(p));
  const Bf16* from = static_cast<const Bf16*>(p.tables[table].data) + static_cast<int64_t>(id) * width + (k - table * width);
  if constexpr (kWhole) return __ldg(reinterpret_cast<const uint4*>(from));
  uint4 bits;
  Bf16* to = reinterpret_cast<Bf16*>(&bits);
#pragma unroll
  for (int j = 0; j < kOctet; ++j) to[j] = from[j];
  return bits;
}

/// Where a lane's weights of output o begin in step `step`: its quad's place among 32 numbers of k, eight of them.
__device__ __forceinline__ const uint4* weightsAt(const NgramEmbedParams& p, int step, int64_t o) {
  const int width = static_cast<int>(tableWidth(p)), k = step * kStep, table = k / width, quad = static_cast<int>(threadIdx.x) & 3;
  return reinterpret_cast<const uint4*>(static_cast<const Bf16*>(p.projectionData[table]) + o * width + (k - table * width) + quad * kOctet);
}

/// A step of 16 outputs and 8 rows: weights (of outputs lane / 4 and lane / 4 + 8) are the m16 operand, rows the n8 one. The four lanes of a quad
/// own 8 numbers of k each; the first four go to one m16n8k16, the last to the next: a sum does not care which of its terms stands where, as
/// long as both operands agree.
__device__ __forceinline__ void multiplyStep(float (&sum)[4], const uint4& low, const uint4& high, const uint4& x) {
  mma16816(sum, {low.x, high.x, low.y, high.y}, x.x, x.y);
  mma16816(sum, {low.z, high.z, low.w, high.w}, x.z, x.w);
}

}  // namespace longcat::cuda
