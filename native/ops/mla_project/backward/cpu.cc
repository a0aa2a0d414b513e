// mla_project_backward on the CPU: the latents again; then the query's way back (rotation, W_qb, norm), the latent row's (rotation,
// norm), and both together through W_qa and W_kva.
#include "ops/mla_project/backward/params.h"

#include "cpu/gemm.h"
#include "cpu/norm_gradients.h"

namespace longcat::LONGCAT_ISA {
namespace {

void addBias(float* row, const Trainable& bias, int64_t width) {
  if (!bias.gradient) return;
  forLanes(width, [&](int64_t k, int n) { storeN(row + k, add(loadN(row + k, n), loadN(bias.values() + k, n)), n); });
}

/// Halves in, interleaved pairs out, by the angle turned back; in place. `halves` has room for a rope part.
void turnBack(float* part, const float* cosSin, int64_t rope, float* halves) {
  const int64_t half = rope / 2;
  for (int64_t j = 0; j < rope; ++j) halves[j] = part[j];
  for (int64_t j = 0; j < half; ++j) {
    const float dY = halves[j], dZ = halves[half + j], c = cosSin[j], s = cosSin[half + j];
    part[2 * j] = dY * c + dZ * s;
    part[2 * j + 1] = dZ * c - dY * s;
  }
}

/// Sizes, and the two norms' parts.
struct Work {
  const MlaProjectBackwardParams& p;
  int64_t rows, hidden, qRank, width, kvRank, queries;
  NormBackward qNorm, kvNorm;
};

Work workOf(const MlaProjectBackwardParams& p) {
  const int64_t width = p.kvA.weight.rows, qRank = p.qA.weight.rows, kvRank = width - p.rope;
  return {p, liveRows(p.rows, p.capacity), p.qA.weight.columns, qRank, width, kvRank, p.heads * (p.nope + p.rope),
          {qRank, p.qANorm.values(), p.scales}, {kvRank, p.kvANorm.values(), p.scales + p.capacity, p.kvScale}};
}

/// a, c = RMS(a), [l | k] and their scales, as the forward has them.
void latentsAgain(const Work& w, const CpuContext& context) {
  const MlaProjectBackwardParams& p = w.p;
  gemmParallel(context, p.x, w.hidden, nullptr, w.rows, p.qA.weight, p.qLatent, w.qRank);
  gemmParallel(context, p.x, w.hidden, nullptr, w.rows, p.kvA.weight, p.kvLatent, w.width);
  forRows(context, w.rows, w.qRank + w.width, [&](int64_t first, int64_t end, int) {
    for (int64_t r = first; r < end; ++r) {
      float* a = p.qLatent + r * w.qRank;
      float* l = p.kvLatent + r * w.width;
      addBias(a, p.qABias, w.qRank);
      addBias(l, p.kvABias, w.width);
      w.qNorm.scales[r] = rmsScale(a, w.qRank, p.eps);
      w.kvNorm.scales[r] = rmsScale(l, w.kvRank, p.eps);
      scaleRow(a, w.qRank, w.qNorm.scales[r], w.qNorm.weight, p.qNormed + r * w.qRank, 1.0f);
    }
  });
}

/// dQ through the rotation and the factor, W_qb and the norm: to da in dQLatent.
void queryBack(const Work& w, const CpuContext& context) {
  const MlaProjectBackwardParams& p = w.p;
  const Rows dQ{p.dQ, w.queries}, dNormed{p.dQLatent, w.qRank};
  forRows(context, w.rows, w.queries, [&](int64_t first, int64_t end, int thread) {
    for (int64_t r = first; r < end; ++r) {
      float* row = p.dQ + r * w.queries;
      for (int64_t h = 0; h < p.heads; ++h)
        turnBack(row + h * (p.nope + p.rope) + p.nope, p.cosSin + r * p.rope, p.rope, context.scratch<float>(thread));
      forLanes(w.queries, [&](int64_t k, int n) { storeN(row + k, mul(loadN(row + k, n), set1(p.qScale)), n); });
    }
  });
  gemmTNParallel(context, dQ, w.queries, w.rows, {p.qNormed, w.qRank}, w.qRank, {p.qB.gradient, w.qRank, true});
  gemmNNParallel(context, dQ, w.rows, w.queries, {p.qB.values(), w.qRank}, w.qRank, {p.dQLatent, w.qRank});
  addNormWeightGradient(context, w.qNorm, {p.qLatent, w.qRank}, dNormed, {nullptr, 0}, w.rows, p.qANorm.gradient);
  forRows(context, w.rows, 2 * w.qRank, [&](int64_t first, int64_t end, int) {
    for (int64_t r = first; r < end; ++r) {
      float* d = p.dQLatent + r * w.qRank;
      normGradientRow(w.qNorm, r, p.qLatent + r * w.qRank, d, nullptr, d);
    }
  });
}

/// dLatents through the norm of the latent and the rope key's rotation, in place: to [dl | dk].
void latentBack(const Work& w, const CpuContext& context) {
  const MlaProjectBackwardParams& p = w.p;
  addNormWeightGradient(context, w.kvNorm, {p.kvLatent, w.width}, {p.dLatents, w.width}, {nullptr, 0}, w.rows, p.kvANorm.gradient);
  forRows(context, w.rows, 2 * w.width, [&](int64_t first, int64_t end, int thread) {
    for (int64_t r = first; r < end; ++r) {
      float* d = p.dLatents + r * w.width;
      normGradientRow(w.kvNorm, r, p.kvLatent + r * w.width, d, nullptr, d);
      turnBack(d + w.kvRank, p.cosSin + r * p.rope, p.rope, context.scratch<float>(thread));
    }
  });
}

}  // namespace

void mla_project_backward(const void* params, const CpuContext& context) {
  const Work w = workOf(*static_cast<const MlaProjectBackwardParams*>(params));
  const MlaProjectBackwardParams& p = w.p;
  latentsAgain(w, context);
  queryBack(w, context);
  latentBack(w, context);
  const Rows x{p.x, w.hidden}, dQLatent{p.dQLatent, w.qRank}, dKvLatent{p.dLatents, w.width};
  gemmTNParallel(context, dQLatent, w.qRank, w.rows, x, w.hidden, {p.qA.gradient, w.hidden, true});
  gemmTNParallel(context, dKvLatent, w.width, w.rows, x, w.hidden, {p.kvA.gradient, w.hidden, true});
  if (p.qABias.gradient) addColumnSums(context, dQLatent, w.rows, w.qRank, p.qABias.gradient);
  if (p.kvABias.gradient) addColumnSums(context, dKvLatent, w.rows, w.width, p.kvABias.gradient);
  gemmNNParallel(context, dQLatent, w.rows, w.qRank, {p.qA.values(), w.hidden}, w.hidden, {p.dX, w.hidden});
  gemmNNParallel(context, dKvLatent, w.rows, w.width, {p.kvA.values(), w.hidden}, w.hidden, {p.dX, w.hidden, true});
}

}  // namespace longcat::LONGCAT_ISA
