// Products with one head's part of kv_b on tensor cores, for 16 decode rows at a time:
//   absorb  q_lat[r][h][n] = Σ_k q[r][h][k] · W[h's key rows + k][n]          k along nope, n along the latent
//   values  out[r][h][n]   = Σ_k latent[r][h][k] · W[h's value rows + n][k]   k along the latent, n along v_dim
// A block holds NT columns n of its head's matrix in shared memory and goes through the rows. bfloat16 and FP8 weights.
//
// Order of sums, whatever NT and the rows: four chains over the quarters of k in steps of 16, added in ascending order. FP8: within a
// quarter the codes' sums are multiplied by their scale and added where the block of scales ends.
#pragma once

#include "cuda/dependent.cuh"
#include "cuda/mma.cuh"
#include "ops/mla_decode/ahead.cuh"
#include "ops/mla_decode/merge.cuh"
#include "ops/mla_decode/merge_units.cuh"

namespace longcat::cuda {
namespace {

constexpr int kProductThreads = 512;
constexpr int kProductWarps = kProductThreads / 32;
constexpr int kProductRows = 16;
constexpr int64_t kProductMaxDepth = 512;  // of k: both operands lie in shared memory with their whole depth
static_assert(kProductWarps == kProductRows);

enum class Product { absorb, values };

/// What a product reads as its rows.
enum class RowSource {
  given,       // q, or latents that were merged into qLatent
  splits,      // partial results of the split list, merged here
  units,       // those of Hopper's units, where a row is not finished; no more than 16 rows
  unitsOfTwo,  // of two rows at most: a multiprocessor has room for two blocks, which find it beside the attention
};
template <RowSource S>
constexpr bool kOfUnits = S == RowSource::units || S == RowSource::unitsOfTwo;

constexpr int64_t productDepth(int64_t k) { return (k + 15) / 16 * 16; }
/// Elements from row to row in shared memory: an odd number of 16-byte chunks.
template <Product P, int NT>
__host__ __device__ constexpr int productWeightStride(int64_t depth) { return P == Product::absorb ? NT + 8 : static_cast<int>(depth) + 8; }
template <Product P, int NT>
constexpr size_t productSharedBytes(int64_t k) {
  const int64_t depth = productDepth(k);
  const size_t weights = static_cast<size_t>((P == Product::absorb ? depth : NT) * productWeightStride<P, NT>(depth));
  return (weights + static_cast<size_t>(kProductRows * (depth + 8))) * sizeof(Bf16) + 4 * kProductRows * NT * sizeof(float);
}

/// Eight weights to shared memory as bfloat16 (FP8: the codes, without their scale); zeros where `there` is false.
__device__ __forceinline__ void loadWeights8(Bf16* to, const Bf16* from, bool there) { copyAsync16(to, from, there); }
__device__ __forceinline__ void loadWeights8(Bf16* to, const Fp8* from, bool there) {
  const uint2 codes = there ? *reinterpret_cast<const uint2*>(from) : make_uint2(0, 0);
  *reinterpret_cast<uint4*>(to) =
      make_uint4(bf16PairOfFp8(codes.x & 0xffffu), bf16PairOfFp8(codes.x >> 16), bf16PairOfFp8(codes.y & 0xffffu), bf16PairOfFp8(codes.y >> 16));
}

template <Product P, class W, int NT>
struct ProductBlock {
  const MlaDecodeParams& p;
  int64_t head, weightRow;    // first of kv_b's rows that take part
  int n0, columns;            // [n0, n0 + NT) of `columns`
  int k, depth;               // k, and with zeros behind it to a multiple of 16
  Bf16 *weights, *rows;       // absorb [depth][NT + 8], values [NT][depth + 8]; [kProductRows][depth + 8]
  float* sums;                // [4][kProductRows][NT]

  __device__ ProductBlock(const MlaDecodeParams& params, void* shared) : p(params) {
    constexpr bool kAbsorb = P == Product::absorb;
    columns = static_cast<int>(kAbsorb ? p.kvRank : p.vDim);
    k = static_cast<int>(kAbsorb ? p.nope : p.kvRank);
    depth = (k + 15) / 16 * 16;
    const int tiles = (columns + NT - 1) / NT;
    head = blockIdx.x / tiles;
    n0 = (blockIdx.x - static_cast<int>(head) * tiles) * NT;
    weightRow = head * (p.nope + p.vDim) + (kAbsorb ? 0 : p.nope);
    weights = static_cast<Bf16*>(shared);
    rows = weights + (kAbsorb ? depth : NT) * productWeightStride<P, NT>(depth);
    sums = reinterpret_cast<float*>(rows + kProductRows * (depth + 8));
  }

  /// Starts loading the block's weights.
  __device__ void loadWeights() const {
    const W* matrix = static_cast<const W*>(p.kvB.data) + weightRow * p.kvB.columns;
    constexpr int stepsOf = NT / 8;
    if constexpr (P == Product::absorb) {
      for (int i = threadIdx.x; i < depth * stepsOf; i += kProductThreads) {
        const int row = i / stepsOf, column = i % stepsOf * 8;
        const bool there = row < k && n0 + column < columns;
        loadWeights8(weights + row * (NT + 8) + column, there ? matrix + row * p.kvB.columns + n0 + column : matrix, there);
      }
    } else {
      for (int row = threadIdx.x / 32; row < NT; row += kProductWarps) {
        for (int column = threadIdx.x % 32 * 8; column < depth; column += 256) {
          const bool there = n0 + row < columns && column < k;
          loadWeights8(weights + row * (depth + 8) + column, there ? matrix + (n0 + row) * p.kvB.columns + column : matrix, there);
        }
      }
    }
  }

  /// Starts copying rows [first, first + 16) of the input; zeros from the last row on.
  __device__ void loadRows(int64_t first, int64_t end) const {
    const int row = threadIdx.x / 32;
    const bool live = first + row < end;
    const int64_t pair = (live ? first + row : first) * p.heads + head;
    const Bf16* from = P == Product::absorb ? numbersIn<Bf16>(p.q) + pair * (p.nope + p.rope) : numbersIn<Bf16>(p.qLatent) + pair * p.kvRank;
    for (int column = threadIdx.x % 32 * 8; column < depth; column += 256) {
      const bool there = live && column < k;
      copyAsync16(rows + row * (depth + 8) + column, from + (there ? column : 0), there);
    }
  }

  /// What comes next (ahead.cuh). A warp calls.
  __device__ void askAhead(const Live& live) const { longcat::cuda::askAhead(p, live, head, n0 / NT, (columns + NT - 1) / NT); }

  /// Which of the rows from `first` on a warp merges, and which of its slices of columns. Few rows: several warps take a row.
  struct MergePart {
    int row, slice, slices;
    bool live;
    __device__ explicit MergePart(int64_t left) {
      const int warp = threadIdx.x / 32;
      slices = left == 1 ? 16 : left == 2 ? 8 : left <= 4 ? 4 : left <= 8 ? 2 : 1;
      row = warp / slices, slice = warp % slices, live = row < left;
    }
  };

  /// Merges rows [first, first + 16) from their splits, in slices of 32 columns.
  __device__ void mergeSplits(const Live& live, int64_t first) const {
    const MergePart part(live.rows - first);
    if (!part.live) return;
    const RowSplits splits = rowSplits(p, live, first + part.row, head);
    if (part.slices >= 8) mergeSlices<1, 16>(splits, part.row, part.slice, part.slices);
    else if (part.slices == 4) mergeSlices<4, 4>(splits, part.row, part.slice, part.slices);
    else mergeSlices<8, 4>(splits, part.row, part.slice, part.slices);
  }

  /// Where the units lie that this warp merges.
  __device__ RowUnits unitsOfWarp(const Live& live, const UnitCut& cut) const {
    const MergePart part(live.rows - live.begin);
    if (!part.live) return {};
    const WorkLine line(p, cut);
    return unitsAt(p, line.resultsOf(line.turnOf(static_cast<int32_t>(live.begin) + part.row)), head);
  }
  /// Merges all rows, which are 16 at most (or two), from their units.
  template <bool kTwo>
  __device__ void mergeUnitsOfRows(const Live& live, const RowUnits& units, const UnitCut& cut) const {
    const MergePart part(live.rows - live.begin);
    if (!part.live) return;
    const int64_t row = live.begin + part.row;
    if constexpr (kTwo) return part.slices == 16 ? unitSlice<float, 1, 16>(units, row, part, cut) : unitSlice<float, 2, 8>(units, row, part, cut);
    switch (part.slices) {
      case 16: return unitSlice<float, 1, 32>(units, row, part, cut);
      case 8: return unitSlice<float, 2, 16>(units, row, part, cut);
      case 4: return unitSlice<float4, 1, 16>(units, row, part, cut);
      case 2: return unitSlice<float4, 2, 8>(units, row, part, cut);
      default: return unitSlice<float4, 4, 4>(units, row, part, cut);
    }
  }
  template <int C, int U>
  __device__ __forceinline__ void mergeSlices(const RowSplits& splits, int row, int slice, int slices) const {
    for (int column = slice * 32; column < depth; column += C * slices * 32) {
      const int mine = column + static_cast<int>(threadIdx.x % 32);
      float merged[C];
      mergeColumns<C, U>(splits, k, mine, slices * 32, merged);
#pragma unroll
      for (int c = 0; c < C; ++c)
        if (mine + c * slices * 32 < depth) rows[row * (depth + 8) + mine + c * slices * 32] = numberOf<Bf16>(merged[c]);
    }
  }

  /// The same of units: a slice has N pieces of 32 V's of columns. Finished rows lie in qLatent.
  template <class V, int N, int kAtOnce>
  __device__ __forceinline__ void unitSlice(const RowUnits& units, int64_t row, const MergePart& part, const UnitCut& cut) const {
    constexpr int kWide = sizeof(V) / sizeof(float), kPiece = 32 * kWide, kWidth = N * kPiece;
    const int lane = threadIdx.x & 31, begin = part.slice * kWidth;
    V merged[N];
    Bf16* to = rows + part.row * (depth + 8);
    if (mergeUnits<V, N, kAtOnce>(units, begin + kWide * lane, merged)) {
#pragma unroll
      for (int i = 0; i < N; ++i) storeMerged(cut, to, begin + kPiece * i, merged[i]);
    } else {
      const Bf16* from = numbersIn<Bf16>(p.qLatent) + (row * p.heads + head) * kHopperRank + begin;
      for (int c = lane; c < kWidth / 8; c += 32) copyAsync16(to + begin + 8 * c, from + 8 * c);
    }
  }

  /// The FP8 scale of step `step` along k and the eight columns from n0 + column on.
  __device__ __forceinline__ float scaleAt(int step, int column) const {
    const int64_t row = weightRow + (P == Product::absorb ? step * 16 : n0 + column), last = p.kvB.rows - 1;
    const int64_t scaleColumn = P == Product::absorb ? n0 + column : step * 16;
    return weightScale(p.kvB, row < last ? row : last, scaleColumn);
  }
  /// Which block of scales along k a step lies in.
  __device__ __forceinline__ int64_t scaleBlock(int step) const {
    return (step * 16 + (P == Product::absorb ? weightRow : 0)) / kFp8Block;
  }

  /// Sums of one quarter of k for 16 rows and 16 columns by one warp.
  __device__ void multiply() const {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, quarter = warp & 3, column0 = (warp >> 2) * 16;
    if (column0 >= NT) return;
    const int steps = depth / 16, length = (steps + 3) / 4, begin = quarter * length, end = min(steps, begin + length);
    float total[2][4] = {}, part[2][4] = {};
    for (int step = begin; step < end; ++step) {
      uint32_t a[4], b[4];
      loadMatrix4(a, rows + (lane & 15) * (depth + 8) + step * 16 + (lane >> 4) * 8);
      if constexpr (P == Product::absorb)
        loadMatrix4Transposed(b, weights + (step * 16 + ((lane >> 3) & 1) * 8 + (lane & 7)) * (NT + 8) + column0 + (lane >> 4) * 8);
      else
        loadMatrix4(b, weights + (column0 + (lane >> 4) * 8 + (lane & 7)) * (depth + 8) + step * 16 + ((lane >> 3) & 1) * 8);
      mma16816(part[0], a, b[0], b[1]);
      mma16816(part[1], a, b[2], b[3]);
      if constexpr (sizeof(W) == 1) {
        if (step + 1 == end || scaleBlock(step + 1) != scaleBlock(step)) {
#pragma unroll
          for (int n = 0; n < 2; ++n) {
            const float scale = scaleAt(step, column0 + 8 * n);
#pragma unroll
            for (int i = 0; i < 4; ++i) total[n][i] = fmaf(part[n][i], scale, total[n][i]), part[n][i] = 0;
          }
        }
      }
    }
    float* to = sums + quarter * kProductRows * NT + column0 + 2 * (lane & 3);
#pragma unroll
    for (int n = 0; n < 2; ++n)
#pragma unroll
      for (int i = 0; i < 4; i += 2) {
        const float* from = sizeof(W) == 1 ? total[n] : part[n];
        *reinterpret_cast<float2*>(to + ((lane >> 2) + 4 * i) * NT + 8 * n) = make_float2(from[i], from[i + 1]);
      }
  }

  /// Adds the quarters and writes rows [first, first + 16), two columns a thread.
  __device__ void store(int64_t first, int64_t end) const {
    const int i = threadIdx.x;
    if (i >= kProductRows * NT / 2) return;
    const int row = i / (NT / 2), column = i % (NT / 2) * 2;
    if (first + row >= end || n0 + column >= columns) return;
    float2 sum = make_float2(0, 0);
#pragma unroll
    for (int quarter = 0; quarter < 4; ++quarter) {
      const float2 part = *reinterpret_cast<const float2*>(sums + (quarter * kProductRows + row) * NT + column);
      sum.x += part.x, sum.y += part.y;
    }
    Bf16* to = P == Product::absorb ? numbersIn<Bf16>(p.qLatent) : numbersIn<Bf16>(p.out);
    *reinterpret_cast<__nv_bfloat162*>(to + ((first + row) * p.heads + head) * columns + n0 + column) = __floats2bfloat162_rn(sum.x, sum.y);
  }
};

/// grid: x = heads · tiles of NT columns, y = 16-row tiles, every gridDim.y-th of which a block takes. `cut`: of units, where rows are merged from them.
template <Product P, RowSource S, class W, int NT>
__global__ void __launch_bounds__(kProductThreads, S == RowSource::unitsOfTwo ? 2 : 1) headProduct(const MlaDecodeParams p, const UnitCut cut) {
  static_assert(S == RowSource::given || P == Product::values);
  extern __shared__ __align__(128) unsigned char sharedBytes[];
  const ProductBlock<P, W, NT> block(p, sharedBytes);
  block.loadWeights();  // which nobody writes
  RowUnits units{};
  if constexpr (kOfUnits<S>) units = block.unitsOfWarp(liveOf(p), cut);  // from lengths, which are older than the launch before this one
  awaitThenLetNextBegin();
  const Live live = liveOf(p);
  if (P == Product::absorb && blockIdx.y == 0 && threadIdx.x / 32 == kProductWarps - 1) block.askAhead(live);
  int64_t first = live.begin + static_cast<int64_t>(blockIdx.y) * kProductRows;
  for (; first < live.rows; first += static_cast<int64_t>(gridDim.y) * kProductRows) {
    if constexpr (S == RowSource::given) block.loadRows(first, live.rows);
    else if constexpr (S == RowSource::splits) block.mergeSplits(live, first);
    else block.template mergeUnitsOfRows<S == RowSource::unitsOfTwo>(live, units, cut);
    commitCopies();
    waitCopies<0>();
    __syncthreads();  // weights and rows are there; the sums before have been read
    block.multiply();
    __syncthreads();  // the sums are there; the rows have been read
    block.store(first, live.rows);
    if constexpr (kOfUnits<S>) break;  // these were all
  }
  waitCopies<0>();  // of the weights, where there were no rows
}

}  // namespace
}  // namespace longcat::cuda
