// What several CPU bodies share beside the vector type: how work is cut in tasks, and the root-mean-square norm of a row.
#pragma once

#include "cpu/simd.h"
#include "ops/op.h"
#include "ops/weight.h"

namespace longcat::LONGCAT_ISA {

LONGCAT_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
LONGCAT_INLINE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

/// Live rows: what the device buffer says, within the capacity.
LONGCAT_INLINE int64_t liveRows(const int32_t* rows, int64_t capacity) { return larger(0, smaller(*rows, capacity)); }

/// f(task, thread) for each task; a single one runs here, without waking anybody.
template <class F>
LONGCAT_INLINE void forTasks(const CpuContext& context, int64_t tasks, const F& f) {
  if (tasks == 1) f(0, 0);
  else if (tasks > 1) context.pool.parallelFor(tasks, f);
}

// The least work worth a task of its own, in products with a weight at one row: some microseconds.
constexpr int64_t kTaskProducts = 128 * 1024;

/// What `rows` rows cost, in rows: up to four share the price of fetching and widening the weights.
LONGCAT_INLINE int64_t rowsCost(int64_t rows) { return (rows + 3) / 4; }

/// Outputs of a product's task, a multiple of 16: the tasks are worth their start and enough to even out the threads.
LONGCAT_INLINE int64_t outputsPerTask(int64_t rows, int64_t outputs, int64_t inputs, int threads) {
  const int64_t products = larger(1, rowsCost(rows) * outputs * inputs);
  const int64_t tasks = larger(1, smaller(products / kTaskProducts, threads == 1 ? 1 : 4 * threads));
  return ((outputs + tasks - 1) / tasks + 15) / 16 * 16;
}

/// f(first, end, thread) over rows [0, rows), cut in tasks, where a row costs about `elements` simple vector elements.
template <class F>
LONGCAT_INLINE void forRows(const CpuContext& context, int64_t rows, int64_t elements, const F& f) {
  const int64_t perTask = larger(1, kTaskProducts / 4 / larger(1, elements));
  forTasks(context, (rows + perTask - 1) / perTask,
           [&](int64_t task, int thread) { f(task * perTask, smaller(rows, (task + 1) * perTask), thread); });
}

/// f(begin, count) over strips of columns, a task each: whole cache lines, so that tasks that write to one row do not share any.
template <class F>
LONGCAT_INLINE void forColumnStrips(const CpuContext& context, int64_t columns, const F& f) {
  constexpr int64_t kStrip = 64;
  forTasks(context, (columns + kStrip - 1) / kStrip, [&](int64_t task, int) { f(task * kStrip, smaller(kStrip, columns - task * kStrip)); });
}

/// to += factor · from.
LONGCAT_INLINE void addScaled(const float* from, int64_t count, float factor, float* to) {
  forLanes(count, [&](int64_t k, int n) { storeN(to + k, fma(set1(factor), loadN(from + k, n), loadN(to + k, n)), n); });
}

/// Σ x², in four chains of vectors folded in one fixed order.
LONGCAT_INLINE float sumOfSquares(const float* x, int64_t width) {
  Vec chains[4] = {zero(), zero(), zero(), zero()};
  int64_t k = 0;
  for (; k + 4 * kLanes <= width; k += 4 * kLanes) {
    for (int c = 0; c < 4; ++c) {
      const Vec v = load(x + k + c * kLanes);
      chains[c] = fma(v, v, chains[c]);
    }
  }
  for (int c = 0; k < width; ++c, k += kLanes) {
    const Vec v = loadN(x + k, static_cast<int>(smaller(kLanes, width - k)));
    chains[c] = fma(v, v, chains[c]);
  }
  return sum(add(add(chains[0], chains[1]), add(chains[2], chains[3])));
}

/// 1 / sqrt(mean(x²) + eps).
LONGCAT_INLINE float rmsScale(const float* x, int64_t width, float eps) {
  const float mean = sumOfSquares(x, width) / static_cast<float>(width);
  return 1.0f / __builtin_sqrtf(mean + eps);
}

/// out = (x · scale) · weight [· factor]; out may be x. `weight` has `width` numbers of type E.
template <class E>
LONGCAT_INLINE void scaleRow(const float* x, int64_t width, float scale, const E* weight, float* out, float factor) {
  forLanes(width, [&](int64_t k, int n) {
    Vec v = mul(mul(loadN(x + k, n), set1(scale)), loadN(weight + k, n));
    if (factor != 1.0f) v = mul(v, set1(factor));
    storeN(out + k, v, n);
  });
}

/// out = RMS-normed x times `weight` (f32 or bf16), times `factor`; out may be x.
LONGCAT_INLINE void normRow(const float* x, const WeightView& weight, float eps, float* out, float factor = 1.0f) {
  const float scale = rmsScale(x, weight.columns, eps);
  if (weight.dtype == DType::bf16) scaleRow(x, weight.columns, scale, static_cast<const Bf16*>(weight.data), out, factor);
  else scaleRow(x, weight.columns, scale, static_cast<const float*>(weight.data), out, factor);
}

}  // namespace longcat::LONGCAT_ISA
