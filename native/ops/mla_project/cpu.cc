// mla_project on the CPU, in three passes: both latents in one parallel loop, then their norms and the cache row, then the query.
#include "ops/mla_project/params.h"

#include "cpu/gemm.h"
#include "cpu/math.h"

namespace longcat::LONGCAT_ISA {
namespace {

constexpr int64_t kRowChunk = 96;  // rows of one task, so that a large batch stays in the cache

int64_t ceilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

/// One stored vector's numbers as fp32 vectors.
Vec loadWeight(const WeightView& w, int64_t k, int n) {
  if (w.dtype == DType::bf16) return loadN(static_cast<const Bf16*>(w.data) + k, n);
  return loadN(static_cast<const float*>(w.data) + k, n);
}

void addBias(float* row, const WeightView& bias, int64_t width) {
  if (!bias.data) return;
  forLanes(width, [&](int64_t k, int n) { storeN(row + k, add(loadN(row + k, n), loadWeight(bias, k, n)), n); });
}

/// Interleaved pairs in, halves out; `out` may not be `in`.
void rotate(const float* in, const float* cosSin, int64_t rope, float* out) {
  const int64_t half = rope / 2;
  for (int64_t j = 0; j < half; ++j) {
    const float a = in[2 * j], b = in[2 * j + 1], c = cosSin[j], s = cosSin[half + j];
    out[j] = a * c - b * s;
    out[half + j] = b * c + a * s;
  }
}

/// Both latent products, in tasks over (outputs of W_qa, then of W_kva) × row chunks.
void projectLatents(const MlaProjectParams& p, const CpuContext& context, int64_t rows) {
  const int64_t hidden = p.qA.columns, outputs = p.qA.rows + p.kvA.rows;
  const int64_t rowChunks = ceilDiv(rows, kRowChunk);
  const int64_t chunk = outputsPerTask(smaller(rows, kRowChunk), outputs, hidden, context.pool.threads());
  const int64_t qChunks = ceilDiv(p.qA.rows, chunk), chunks = qChunks + ceilDiv(p.kvA.rows, chunk);
  forTasks(context, chunks * rowChunks, [&](int64_t task, int) {
    const int64_t first = task % rowChunks * kRowChunk, count = smaller(kRowChunk, rows - first), c = task / rowChunks;
    const bool isQuery = c < qChunks;
    const WeightView& w = isQuery ? p.qA : p.kvA;
    float* out = isQuery ? p.qLatent : p.kvLatent;
    const int64_t begin = (isQuery ? c : c - qChunks) * chunk;
    gemm(p.x + first * hidden, hidden, nullptr, count, w, begin, smaller(begin + chunk, w.rows), out + first * w.rows, w.rows);
  });
}

/// The norms of row r, and its cache row. A packed one is made of what the norm leaves in kvLatent; `pairs` has room for a rope part.
void finishLatents(const MlaProjectParams& p, int64_t r, float* pairs) {
  const int64_t qRank = p.qA.rows, width = p.kvA.rows, kvRank = width - p.rope;
  float* q = p.qLatent + r * qRank;
  addBias(q, p.qABias, qRank);
  normRow(q, p.qANorm, p.eps, q);
  float* kv = p.kvLatent + r * width;
  addBias(kv, p.kvABias, width);
  const int64_t position = p.positions[r];
  const int64_t block = p.blockTables[p.rowSlot[r] * p.maxBlocks + position / p.blockSize];
  const int64_t cacheRow = block * p.blockSize + position % p.blockSize;
  float* out = p.packedCache ? kv : p.cache + cacheRow * width;
  for (int64_t j = 0; j < p.rope; ++j) pairs[j] = kv[kvRank + j];
  normRow(kv, p.kvANorm, p.eps, out, p.kvScale);
  rotate(pairs, p.cosSin + r * p.rope, p.rope, out + kvRank);
  if (p.packedCache) packRow(kv, kvRank, p.rope, p.packedRow(cacheRow));
}

/// The queries of one head for rows [first, first + count): product, scale, rotation. `pairs` has room for a rope part.
void projectHead(const MlaProjectParams& p, int64_t head, int64_t first, int64_t count, float* pairs) {
  const int64_t width = p.nope + p.rope, stride = p.heads * width, qRank = p.qB.columns;
  gemm(p.qLatent + first * qRank, qRank, nullptr, count, p.qB, head * width, (head + 1) * width, p.q + first * stride, stride);
  for (int64_t r = first; r < first + count; ++r) {
    float* q = p.q + r * stride + head * width;
    forLanes(p.nope, [&](int64_t k, int n) { storeN(q + k, mul(loadN(q + k, n), set1(p.qScale)), n); });
    for (int64_t j = 0; j < p.rope; ++j) pairs[j] = q[p.nope + j] * p.qScale;
    rotate(pairs, p.cosSin + r * p.rope, p.rope, q + p.nope);
  }
}

}  // namespace

void mla_project(const void* params, const CpuContext& context) {
  const auto& p = *static_cast<const MlaProjectParams*>(params);
  const int64_t rows = liveRows(p.rows, p.capacity);
  if (!rows) return;
  projectLatents(p, context, rows);
  forRows(context, rows, p.qA.rows + p.kvA.rows, [&](int64_t first, int64_t end, int thread) {
    for (int64_t r = first; r < end; ++r) finishLatents(p, r, context.scratch<float>(thread));
  });
  const int64_t rowChunks = ceilDiv(rows, kRowChunk);
  forTasks(context, p.heads * rowChunks, [&](int64_t task, int thread) {
    const int64_t first = task % rowChunks * kRowChunk;
    projectHead(p, task / rowChunks, first, smaller(kRowChunk, rows - first), context.scratch<float>(thread));
  });
}

}  // namespace longcat::LONGCAT_ISA
