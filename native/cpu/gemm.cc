// Matrix products: tiles of rows × outputs in registers, each result one vector chain along k (gemm.h has the rule).
//
// Few rows (at most kTileRows): one pass over the weights as stored, widened in registers. More rows: blocks of kBlockRows rows ×
// kGroupOutputs outputs × kChunk of k, so that x stays in the cache; FP8 is widened once per block. A chain that is
// interrupted at a chunk's end rests in memory, lane by lane, so no path changes a bit.
#include "cpu/gemm.h"

#include "cpu/math.h"
#include "cpu/simd.h"

namespace longcat::LONGCAT_ISA {
namespace {

#if LONGCAT_AVX512
constexpr int kTileRows = 6, kTileOutputs = 4;  // 24 of 32 registers accumulate
constexpr int kThinRows = 3, kThinOutputs = 8;  // up to 3 rows: more weight streams at once
#elif LONGCAT_AVX2
constexpr int kTileRows = 3, kTileOutputs = 4;
constexpr int kThinRows = 1, kThinOutputs = 8;
#else
constexpr int kTileRows = 1, kTileOutputs = 4;
constexpr int kThinRows = 0, kThinOutputs = 8;
#endif
constexpr int64_t kBlockRows = 48;
constexpr int64_t kGroupOutputs = 16;
constexpr int64_t kChunk = 1024;      // of k
static_assert(kChunk % kFp8Block == 0);
constexpr int64_t kStreamAhead = 512; // bytes: how far ahead of a single pass weights are fetched

/// One tile's work: chains of R rows × O outputs over k in [0, count).
template <class E>
struct Tile {
  const float* x[kTileRows] = {};    // each row at the chunk's first k
  const float* scale[kThinOutputs];  // FP8: each output's scales at the chunk's first block
  const E* w = nullptr;              // first output's weights at the chunk's first k
  int64_t wStride = 0;
  int64_t count = 0;
  Vec* chains = nullptr;             // [R][O] resting chains: read unless first, written unless last
  bool first = true, last = true;
  int64_t ahead = kStreamAhead;      // bytes from a weight to the one to fetch meanwhile
  float* out = nullptr;              // written if last
  int64_t outStride;
  Tile(int64_t k, int64_t stride) : count(k), outStride(stride) {}
};

/// Sums of O chains, four at a time where possible: the tree is the same.
template <int O>
LONGCAT_INLINE void storeSums(const Vec* chains, float* out) {
  if constexpr (O % 4 == 0) {
    for (int o = 0; o < O; o += 4) sum4(chains[o], chains[o + 1], chains[o + 2], chains[o + 3], out + o);
  } else {
    for (int o = 0; o < O; ++o) out[o] = sum(chains[o]);
  }
}

/// n weights as floats; FP8 × *scale, which holds the block's scale × kF8Unit.
template <class E, bool kWhole>
LONGCAT_INLINE Vec loadScaled(const E* w, int n, [[maybe_unused]] const Vec* scale) {
  if constexpr (sizeof(E) == 1) return mul(kWhole ? loadUnits(w) : loadUnitsPartial(w, n), *scale);
  else return kWhole ? load(w) : loadPartial(w, n);
}

LONGCAT_INLINE void fetch(const void* p, int64_t ahead) { __builtin_prefetch(static_cast<const char*>(p) + ahead); }

/// chains[r][o] += x_r · w_o over lanes [k, k + n).
template <class E, int R, int O, bool kWhole>
LONGCAT_INLINE void step(const float* const* x, const E* const* w, const Vec* scale, int64_t k, int n, int64_t ahead, Vec (&chains)[R][O]) {
  Vec rows[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) rows[r] = kWhole ? load(x[r] + k) : loadPartial(x[r] + k, n);
#pragma GCC unroll 8
  for (int o = 0; o < O; ++o) {
    if constexpr (kWhole) fetch(w[o] + k, ahead);
    const Vec weights = loadScaled<E, kWhole>(w[o] + k, n, scale + o);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) chains[r][o] = fma(rows[r], weights, chains[r][o]);
  }
}

template <class E, int R, int O>
void runTile(const Tile<E>& t) {
  Vec chains[R][O];
  const float* x[R];
  const E* w[O];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) x[r] = t.x[r];
#pragma GCC unroll 8
  for (int o = 0; o < O; ++o) w[o] = t.w + o * t.wStride;
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int o = 0; o < O; ++o) chains[r][o] = t.first ? zero() : t.chains[r * O + o];
  }
  const int64_t whole = t.count - t.count % kLanes;
  if constexpr (sizeof(E) == 1) {
    for (int64_t block = 0; block < t.count; block += kFp8Block) {
      Vec scale[O];
#pragma GCC unroll 8
      for (int o = 0; o < O; ++o) scale[o] = set1(t.scale[o][block / kFp8Block] * kF8Unit);
      const int64_t end = block + kFp8Block < whole ? block + kFp8Block : whole;
      for (int64_t k = block; k < end; k += kLanes) step<E, R, O, true>(x, w, scale, k, kLanes, t.ahead, chains);
      if (block + kFp8Block >= t.count && whole < t.count)
        step<E, R, O, false>(x, w, scale, whole, static_cast<int>(t.count - whole), 0, chains);
    }
  } else {
    for (int64_t k = 0; k < whole; k += kLanes) step<E, R, O, true>(x, w, nullptr, k, kLanes, t.ahead, chains);
    if (whole < t.count) step<E, R, O, false>(x, w, nullptr, whole, static_cast<int>(t.count - whole), 0, chains);
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    if (t.last) {
      storeSums<O>(chains[r], t.out + r * t.outStride);
    } else {
#pragma GCC unroll 8
      for (int o = 0; o < O; ++o) t.chains[r * O + o] = chains[r][o];
    }
  }
}

template <class E, int O, int R>
LONGCAT_INLINE void runRows(int rows, const Tile<E>& t) {
  if constexpr (R > 1) {
    if (rows < R) return runRows<E, O, R - 1>(rows, t);
  }
  runTile<E, R, O>(t);
}

/// The weights of a product as a typed matrix.
template <class E>
struct Matrix {
  const E* data;
  const float* scale;
  int64_t columns, scaleColumns;
  explicit Matrix(const WeightView& w)
      : data(static_cast<const E*>(w.data)), scale(w.scale), columns(w.columns), scaleColumns((w.columns + kFp8Block - 1) / kFp8Block) {}
  const float* scales(int64_t output, int64_t k) const { return scale + output / kFp8Block * scaleColumns + k / kFp8Block; }
};

/// Points `t` at outputs [o, o + count) from column k.
template <class E>
LONGCAT_INLINE void pointAt(Tile<E>& t, const Matrix<E>& w, int64_t o, int count, int64_t k) {
  t.w = w.data + o * w.columns + k;
  t.wStride = w.columns;
  if constexpr (sizeof(E) == 1) {
    for (int i = 0; i < count; ++i) t.scale[i] = w.scales(o + i, k);
  }
}

/// At most kTileRows rows, the whole of k in one pass.
template <class E>
void fewRows(Tile<E>& t, int rows, const Matrix<E>& w, int64_t begin, int64_t end, float* out) {
  int64_t o = begin;
  if constexpr (kThinRows > 0) {
    if (rows <= kThinRows) {
      for (; o + kThinOutputs <= end; o += kThinOutputs) {
        pointAt(t, w, o, kThinOutputs, 0);
        t.out = out + o;
        runRows<E, kThinOutputs, kThinRows>(rows, t);
      }
    }
  }
  for (; o + kTileOutputs <= end; o += kTileOutputs) {
    pointAt(t, w, o, kTileOutputs, 0);
    t.out = out + o;
    runRows<E, kTileOutputs, kTileRows>(rows, t);
  }
  for (; o < end; ++o) {
    pointAt(t, w, o, 1, 0);
    t.out = out + o;
    runRows<E, 1, kTileRows>(rows, t);
  }
}

/// Outputs [o, o + count) × k in [k, k + n) as float, rows kChunk apart; the bytes `ahead` are fetched meanwhile.
template <class E>
void widenPanel(const Matrix<E>& w, int64_t o, int count, int64_t k, int64_t n, int64_t ahead, float* panel) {
  for (int i = 0; i < count; ++i) {
    const E* from = w.data + (o + i) * w.columns + k;
    float* to = panel + i * kChunk;
    const float* scales = nullptr;
    if constexpr (sizeof(E) == 1) scales = w.scales(o + i, k);
    forLanes(n, [&](int64_t j, int lanes) {
      fetch(from + j, ahead);
      const Vec scale = set1(sizeof(E) == 1 ? scales[j / kFp8Block] * kF8Unit : 1.0f);
      if (lanes == kLanes) store(to + j, loadScaled<E, true>(from + j, lanes, &scale));
      else storePartial(to + j, loadScaled<E, false>(from + j, lanes, &scale), lanes);
    });
  }
}

/// Where rows are and go.
struct Rows {
  const float* x;
  int64_t xStride;
  const int32_t* index;
  float* out;
  int64_t outStride;
  const float* row(int64_t r) const { return x + (index ? index[r] : r) * xStride; }
};

/// A tile of every row of a block: `t` names the weights, `chains` rests row by row, O apart.
template <class T, int O>
LONGCAT_INLINE void tileOfRows(Tile<T>& t, const Rows& rows, int64_t begin, int64_t count, int64_t k, int64_t o, Vec* chains) {
  const int64_t tiles = (count + kTileRows - 1) / kTileRows;
  for (int64_t i = 0; i < tiles; ++i) {
    const int64_t from = count * i / tiles, to = count * (i + 1) / tiles;  // even tiles: 6 + 5 + 5, not 6 + 6 + 4
    for (int64_t r = from; r < to; ++r) t.x[r - from] = rows.row(begin + r) + k;
    t.chains = chains + from * O;
    if (i > 0) t.ahead = 0;  // the first tile has fetched them
    t.out = rows.out + (begin + from) * rows.outStride + o;
    runRows<T, O, kTileRows>(static_cast<int>(to - from), t);
  }
}

template <class E, int O>
LONGCAT_INLINE void blockTile(const Rows& rows, int64_t begin, int64_t count, const Matrix<E>& w, int64_t o, int64_t k, int64_t n, int64_t ahead,
                              Vec* chains) {
  if constexpr (sizeof(E) == 1) {
    alignas(64) float panel[O * kChunk];
    widenPanel(w, o, O, k, n, ahead, panel);
    Tile<float> t(n, rows.outStride);
    t.w = panel;
    t.wStride = kChunk;
    t.ahead = 0;
    t.first = k == 0;
    t.last = k + n == w.columns;
    tileOfRows<float, O>(t, rows, begin, count, k, o, chains);
  } else {
    Tile<E> t(n, rows.outStride);
    pointAt(t, w, o, O, k);
    t.ahead = ahead;
    t.first = k == 0;
    t.last = k + n == w.columns;
    tileOfRows<E, O>(t, rows, begin, count, k, o, chains);
  }
}

/// One chunk of k of a group of outputs, for a block of rows. The tile after the last one starts `jump` elements from the group's first.
template <class E>
LONGCAT_INLINE void blockGroup(const Rows& rows, int64_t begin, int64_t count, const Matrix<E>& w, int64_t group, int64_t groupEnd, int64_t k,
                               int64_t n, int64_t jump, Vec* chains) {
  int64_t o = group;
  for (; o + kTileOutputs <= groupEnd; o += kTileOutputs) {
    const bool lastTile = o + 2 * kTileOutputs > groupEnd;
    const int64_t next = lastTile ? jump - (o - group) * w.columns : kTileOutputs * w.columns;
    blockTile<E, kTileOutputs>(rows, begin, count, w, o, k, n, next * static_cast<int64_t>(sizeof(E)), chains + (o - group) * kBlockRows);
  }
  for (; o < groupEnd; ++o) blockTile<E, 1>(rows, begin, count, w, o, k, n, kStreamAhead, chains + (o - group) * kBlockRows);
}

template <class E>
void manyRows(const Rows& rows, int64_t count, const Matrix<E>& w, int64_t begin, int64_t end) {
  alignas(64) Vec chains[kGroupOutputs * kBlockRows];
  for (int64_t r = 0; r < count; r += kBlockRows) {
    const int64_t blockRows = smaller(kBlockRows, count - r);
    for (int64_t group = begin; group < end; group += kGroupOutputs) {
      const int64_t groupEnd = smaller(end, group + kGroupOutputs);
      for (int64_t k = 0; k < w.columns; k += kChunk) {
        const int64_t n = smaller(kChunk, w.columns - k);
        const int64_t jump = k + n < w.columns ? n : (groupEnd - group) * w.columns - k;  // to the next chunk, or the next group's first
        blockGroup(rows, r, blockRows, w, group, groupEnd, k, n, jump, chains);
      }
    }
  }
}

template <class E>
void gemmOf(const Rows& rows, int64_t count, const WeightView& view, int64_t begin, int64_t end) {
  const Matrix<E> w(view);
  if (count > kTileRows) return manyRows(rows, count, w, begin, end);
  Tile<E> t(w.columns, rows.outStride);
  for (int64_t r = 0; r < count; ++r) t.x[r] = rows.row(r);
  fewRows(t, static_cast<int>(count), w, begin, end, rows.out);
}

// ---- products with the transpose ---------------------------------------------------------------------------------------

#if LONGCAT_AVX512
constexpr int kWideRows = 4, kWideVectors = 4;
#elif LONGCAT_AVX2
constexpr int kWideRows = 2, kWideVectors = 4;
#else
constexpr int kWideRows = 1, kWideVectors = 4;
#endif

/// R rows × V vectors of columns from j; `last` is the number of lanes of the last vector.
template <class E, int R, int V>
void transposedTile(const float* a, int64_t aStride, const Matrix<E>& w, int64_t rowBegin, int64_t rowEnd, int64_t j, int last, float* out,
                    int64_t outStride) {
  Vec chains[R][V];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) chains[r][v] = zero();
  }
  for (int64_t i = rowBegin; i < rowEnd; ++i) {
    const E* row = w.data + i * w.columns + j;
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) {
      const Vec scale = set1(sizeof(E) == 1 ? *w.scales(i, j + v * kLanes) * kF8Unit : 1.0f);
      const Vec weights = v + 1 < V || last == kLanes ? loadScaled<E, true>(row + v * kLanes, kLanes, &scale)
                                                      : loadScaled<E, false>(row + v * kLanes, last, &scale);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) chains[r][v] = fma(set1(a[r * aStride + i - rowBegin]), weights, chains[r][v]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) storeN(out + r * outStride + j + v * kLanes, chains[r][v], v + 1 < V ? kLanes : last);
  }
}

template <class E, int R>
void transposedRows(const float* a, int64_t aStride, const Matrix<E>& w, int64_t rowBegin, int64_t rowEnd, float* out, int64_t outStride) {
  int64_t j = 0;
  for (; j + kWideVectors * kLanes <= w.columns; j += kWideVectors * kLanes)
    transposedTile<E, R, kWideVectors>(a, aStride, w, rowBegin, rowEnd, j, kLanes, out, outStride);
  for (; j < w.columns; j += kLanes) {
    const int64_t left = w.columns - j;
    transposedTile<E, R, 1>(a, aStride, w, rowBegin, rowEnd, j, left < kLanes ? static_cast<int>(left) : kLanes, out, outStride);
  }
}

template <class E>
void transposedOf(const float* a, int64_t aStride, int64_t rows, const WeightView& view, int64_t rowBegin, int64_t rowEnd, float* out,
                  int64_t outStride) {
  const Matrix<E> w(view);
  int64_t r = 0;
  for (; r + kWideRows <= rows; r += kWideRows)
    transposedRows<E, kWideRows>(a + r * aStride, aStride, w, rowBegin, rowEnd, out + r * outStride, outStride);
  for (; r < rows; ++r) transposedRows<E, 1>(a + r * aStride, aStride, w, rowBegin, rowEnd, out + r * outStride, outStride);
}

}  // namespace

void gemm(const float* x, int64_t xStride, const int32_t* rowIndex, int64_t rows, const WeightView& w, int64_t begin, int64_t end, float* out,
          int64_t outStride) {
  if (rows <= 0 || begin >= end) return;
  const Rows where{x, xStride, rowIndex, out, outStride};
  switch (w.dtype) {
    case DType::bf16: return gemmOf<Bf16>(where, rows, w, begin, end);
    case DType::f8e4m3: return gemmOf<F8>(where, rows, w, begin, end);
    default: return gemmOf<float>(where, rows, w, begin, end);
  }
}

void gemmParallel(const CpuContext& context, const float* x, int64_t xStride, const int32_t* rowIndex, int64_t rows, const WeightView& w,
                  float* out, int64_t outStride) {
  const int64_t chunk = outputsPerTask(rows, w.rows, w.columns, context.pool.threads());
  forTasks(context, (w.rows + chunk - 1) / chunk, [&](int64_t task, int) {
    const int64_t end = (task + 1) * chunk;
    gemm(x, xStride, rowIndex, rows, w, task * chunk, end < w.rows ? end : w.rows, out, outStride);
  });
}

void gemmTransposed(const float* a, int64_t aStride, int64_t rows, const WeightView& w, int64_t rowBegin, int64_t rowEnd, float* out,
                    int64_t outStride) {
  switch (w.dtype) {
    case DType::bf16: return transposedOf<Bf16>(a, aStride, rows, w, rowBegin, rowEnd, out, outStride);
    case DType::f8e4m3: return transposedOf<F8>(a, aStride, rows, w, rowBegin, rowEnd, out, outStride);
    default: return transposedOf<float>(a, aStride, rows, w, rowBegin, rowEnd, out, outStride);
  }
}

}  // namespace longcat::LONGCAT_ISA
