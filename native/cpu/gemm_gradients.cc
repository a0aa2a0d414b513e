// A · B and Aᵀ · B: tiles of rows × vectors of columns in registers (gemm_gradients.h has the rule).
//
// The depth goes in blocks, so that a block of B's rows stays in the cache while tiles of results pass over it; between two blocks a
// chain rests in its result. Of Aᵀ, a block's numbers are first put side by side as tiles read them: from row to row of A they
// lie far apart, and at strides that are powers of two on the same few lines of the cache.
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
constexpr int64_t kDepth = 256;                    // of a block
constexpr int64_t kPanelRows = 48;                 // of results, whose part of Aᵀ is packed at once
static_assert(kPanelRows % kTileRows == 0);

/// Where a tile's results are, and whether its chains go on from what is there.
struct TileResults {
  float* data;
  int64_t stride;
  bool goOn;
};

/// R rows of results × V vectors of columns, over `depth` rows of B from row `first` and column `j` on. A's number n for row r is
/// a[r][n · step]; `last` is the number of lanes of the last vector.
template <int R, int V>
void runTile(const float* const* a, int64_t step, const Rows& b, int64_t first, int64_t depth, int64_t j, int last, const TileResults& out) {
  Vec chains[R][V];
  const float* rows[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    rows[r] = a[r];
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) chains[r][v] = out.goOn ? loadN(out.data + r * out.stride + v * kLanes, v + 1 < V ? kLanes : last) : zero();
  }
  for (int64_t n = 0; n < depth; ++n) {
    const float* from = b.at(first + n) + j;
    Vec values[V];
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) values[v] = loadN(from + v * kLanes, v + 1 < V ? kLanes : last);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const Vec factor = set1(rows[r][n * step]);
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) chains[r][v] = fma(factor, values[v], chains[r][v]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) storeN(out.data + r * out.stride + v * kLanes, chains[r][v], v + 1 < V ? kLanes : last);
  }
}

template <int V, int R = kTileRows>
LONGCAT_INLINE void runRows(int rows, const float* const* a, int64_t step, const Rows& b, int64_t first, int64_t depth, int64_t j, int last,
                            const TileResults& out) {
  if constexpr (R > 1) {
    if (rows < R) return runRows<V, R - 1>(rows, a, step, b, first, depth, j, last, out);
  }
  runTile<R, V>(a, step, b, first, depth, j, last, out);
}

/// Rows [begin, end) of results × V vectors of columns over one block of the depth. rowOf(i) is where A has row i's numbers, `step` apart.
template <int V, class A>
LONGCAT_INLINE void runStrip(const A& rowOf, int64_t step, int64_t begin, int64_t end, const Rows& b, int64_t first, int64_t depth, int64_t j, int last,
                             const Into& out) {
  for (int64_t i = begin; i < end; i += kTileRows) {
    const auto rows = static_cast<int>(smaller(kTileRows, end - i));
    const float* a[kTileRows];
    for (int r = 0; r < rows; ++r) a[r] = rowOf(i + r);
    runRows<V>(rows, a, step, b, first, depth, j, last, {out.data + i * out.stride + j, out.stride, first > 0 || out.add});
  }
}

template <class A>
LONGCAT_INLINE void runBlock(const A& rowOf, int64_t step, int64_t begin, int64_t end, const Rows& b, int64_t first, int64_t depth, int64_t columns,
                             const Into& out) {
  int64_t j = 0;
  for (; j + kTileVectors * kLanes <= columns; j += kTileVectors * kLanes)
    runStrip<kTileVectors>(rowOf, step, begin, end, b, first, depth, j, kLanes, out);
  for (; j < columns; j += kLanes) runStrip<1>(rowOf, step, begin, end, b, first, depth, j, static_cast<int>(smaller(kLanes, columns - j)), out);
}

/// No rows to sum over: results that are not added to are 0.
void clear(int64_t begin, int64_t end, int64_t columns, const Into& out) {
  for (int64_t i = begin; i < end && !out.add; ++i)
    forLanes(columns, [&](int64_t j, int n) { storeN(out.data + i * out.stride + j, zero(), n); });
}

void gemmNNRows(const Rows& a, int64_t begin, int64_t end, int64_t depth, const Rows& b, int64_t columns, const Into& out) {
  if (depth <= 0) clear(begin, end, columns, out);
  for (int64_t first = 0; first < depth; first += kDepth)
    runBlock([&](int64_t i) { return a.at(i) + first; }, 1, begin, end, b, first, smaller(kDepth, depth - first), columns, out);
}

/// f(begin, end) over rows of results, each worth depth × columns products.
template <class F>
LONGCAT_INLINE void forResultRows(const CpuContext& context, int64_t rows, int64_t depth, int64_t columns, const F& f) {
  const int64_t chunk = outputsPerTask(depth, rows, columns, context.pool.threads());
  forTasks(context, (rows + chunk - 1) / chunk, [&](int64_t task, int) { f(task * chunk, smaller(rows, (task + 1) * chunk)); });
}

}  // namespace

void gemmNN(const Rows& a, int64_t rows, int64_t depth, const Rows& b, int64_t columns, const Into& out) {
  gemmNNRows(a, 0, rows, depth, b, columns, out);
}

void gemmTN(const Rows& a, int64_t begin, int64_t end, int64_t depth, const Rows& b, int64_t columns, const Into& out) {
  if (depth <= 0) clear(begin, end, columns, out);
  alignas(64) float packed[kDepth * kPanelRows];
  for (int64_t first = 0; first < depth; first += kDepth) {
    const int64_t count = smaller(kDepth, depth - first);
    for (int64_t panel = begin; panel < end; panel += kPanelRows) {
      const int64_t last = smaller(end, panel + kPanelRows);
      for (int64_t n = 0; n < count; ++n) {
        const float* from = a.at(first + n) + panel;
        forLanes(last - panel, [&](int64_t k, int lanes) { storeN(packed + n * kPanelRows + k, loadN(from + k, lanes), lanes); });
      }
      runBlock([&](int64_t i) { return packed + i - panel; }, kPanelRows, panel, last, b, first, count, columns, out);
    }
  }
}

void gemmNNParallel(const CpuContext& context, const Rows& a, int64_t rows, int64_t depth, const Rows& b, int64_t columns, const Into& out) {
  forResultRows(context, rows, depth, columns, [&](int64_t begin, int64_t end) { gemmNNRows(a, begin, end, depth, b, columns, out); });
}

void gemmTNParallel(const CpuContext& context, const Rows& a, int64_t outputs, int64_t depth, const Rows& b, int64_t columns, const Into& out) {
  forResultRows(context, outputs, depth, columns, [&](int64_t begin, int64_t end) { gemmTN(a, begin, end, depth, b, columns, out); });
}

void addColumnSums(const CpuContext& context, const Rows& a, int64_t rows, int64_t columns, float* out) {
  forColumnStrips(context, columns, [&](int64_t begin, int64_t count) {
    forLanes(count, [&](int64_t k, int n) {
      Vec total = zero();
      for (int64_t r = 0; r < rows; ++r) total = add(total, loadN(a.at(r) + begin + k, n));
      storeN(out + begin + k, add(loadN(out + begin + k, n), total), n);
    });
  });
}

}  // namespace longcat::LONGCAT_ISA
