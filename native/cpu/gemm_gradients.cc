// A · B and Aᵀ · B: tiles of rows × vectors of columns in registers, along the whole depth (gemm_gradients.h has the rule).
// Columns go in strips, so that the strip of B stays in the cache while A passes.
#include "cpu/gemm_gradients.h"

namespace longcat::LONGCAT_ISA {
namespace {

#if LONGCAT_AVX512
constexpr int kTileRows = 6, kTileVectors = 4;  // 24 of 32 registers accumulate
#elif LONGCAT_AVX2
constexpr int kTileRows = 3, kTileVectors = 3;
#else
constexpr int kTileRows = 1, kTileVectors = 4;
#endif

/// R rows of results from `i`, V vectors of columns from `j`; `last` is the number of lanes of the last vector.
template <bool kTransposed, int R, int V>
void runTile(const Rows& a, int64_t i, int64_t depth, const Rows& b, int64_t j, int last, const Into& out) {
  Vec chains[R][V];
  const float* rows[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    rows[r] = kTransposed ? nullptr : a.at(i + r);
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) chains[r][v] = zero();
  }
  for (int64_t n = 0; n < depth; ++n) {
    const float* from = b.at(n) + j;
    const float* column = kTransposed ? a.at(n) + i : nullptr;
    Vec values[V];
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) values[v] = v + 1 < V || last == kLanes ? load(from + v * kLanes) : loadPartial(from + v * kLanes, last);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const Vec factor = set1(kTransposed ? column[r] : rows[r][n]);
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) chains[r][v] = fma(factor, values[v], chains[r][v]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) {
      float* to = out.data + (i + r) * out.stride + j + v * kLanes;
      const int lanes = v + 1 < V ? kLanes : last;
      storeN(to, out.add ? add(loadN(to, lanes), chains[r][v]) : chains[r][v], lanes);
    }
  }
}

template <bool kTransposed, int V, int R = kTileRows>
LONGCAT_INLINE void runRows(int rows, const Rows& a, int64_t i, int64_t depth, const Rows& b, int64_t j, int last, const Into& out) {
  if constexpr (R > 1) {
    if (rows < R) return runRows<kTransposed, V, R - 1>(rows, a, i, depth, b, j, last, out);
  }
  runTile<kTransposed, R, V>(a, i, depth, b, j, last, out);
}

template <bool kTransposed, int V>
void runStrip(const Rows& a, int64_t begin, int64_t end, int64_t depth, const Rows& b, int64_t j, int last, const Into& out) {
  for (int64_t i = begin; i < end; i += kTileRows)
    runRows<kTransposed, V>(static_cast<int>(smaller(kTileRows, end - i)), a, i, depth, b, j, last, out);
}

template <bool kTransposed>
void run(const Rows& a, int64_t begin, int64_t end, int64_t depth, const Rows& b, int64_t columns, const Into& out) {
  int64_t j = 0;
  for (; j + kTileVectors * kLanes <= columns; j += kTileVectors * kLanes)
    runStrip<kTransposed, kTileVectors>(a, begin, end, depth, b, j, kLanes, out);
  for (; j < columns; j += kLanes)
    runStrip<kTransposed, 1>(a, begin, end, depth, b, j, static_cast<int>(smaller(kLanes, columns - j)), out);
}

/// f(begin, end) over rows of results, each worth depth × columns products.
template <class F>
LONGCAT_INLINE void forResultRows(const CpuContext& context, int64_t rows, int64_t depth, int64_t columns, const F& f) {
  const int64_t chunk = outputsPerTask(depth, rows, columns, context.pool.threads());
  forTasks(context, (rows + chunk - 1) / chunk, [&](int64_t task, int) { f(task * chunk, smaller(rows, (task + 1) * chunk)); });
}

}  // namespace

void gemmNN(const Rows& a, int64_t rows, int64_t depth, const Rows& b, int64_t columns, const Into& out) {
  run<false>(a, 0, rows, depth, b, columns, out);
}

void gemmTN(const Rows& a, int64_t begin, int64_t end, int64_t depth, const Rows& b, int64_t columns, const Into& out) {
  run<true>(a, begin, end, depth, b, columns, out);
}

void gemmNNParallel(const CpuContext& context, const Rows& a, int64_t rows, int64_t depth, const Rows& b, int64_t columns, const Into& out) {
  forResultRows(context, rows, depth, columns, [&](int64_t begin, int64_t end) { run<false>(a, begin, end, depth, b, columns, out); });
}

void gemmTNParallel(const CpuContext& context, const Rows& a, int64_t outputs, int64_t depth, const Rows& b, int64_t columns, const Into& out) {
  forResultRows(context, outputs, depth, columns, [&](int64_t begin, int64_t end) { run<true>(a, begin, end, depth, b, columns, out); });
}

void addColumnSums(const CpuContext& context, const Rows& a, int64_t rows, int64_t columns, float* out) {
  constexpr int64_t kStrip = 64;  // whole cache lines, so that tasks do not share any
  forTasks(context, (columns + kStrip - 1) / kStrip, [&](int64_t task, int) {
    const int64_t begin = task * kStrip;
    forLanes(smaller(kStrip, columns - begin), [&](int64_t k, int n) {
      Vec total = zero();
      for (int64_t r = 0; r < rows; ++r) total = add(total, loadN(a.at(r) + begin + k, n));
      storeN(out + begin + k, add(loadN(out + begin + k, n), total), n);
    });
  });
}

}  // namespace longcat::LONGCAT_ISA
