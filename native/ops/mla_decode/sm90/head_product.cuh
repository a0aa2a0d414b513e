// Products with one head's part of kv_b for many rows on Hopper: what ../head_product.cuh does for few, in the same order and with the same bits
// (a chain of wgmma has those of the same chain of mma.sync).
//   absorb  q_lat[r][h][n] = Σ_k q[r][h][k] · W[h's key rows + k][n]          128 k along nope, 256 or 128 of the 512 n along the latent
//   values  out[r][h][n]   = Σ_k latent[r][h][k] · W[h's value rows + n][k]   512 k along the latent, 64 n along v_dim
// A block holds a head's columns n for all k in shared memory, fetched before the rows are there; its two warpgroups take 64 rows at a time.
#pragma once

#include "cuda/hopper/barrier.cuh"
#include "cuda/hopper/copy.cuh"
#include "cuda/hopper/wgmma.cuh"
#include "ops/mla_decode/head_product.cuh"

namespace longcat::cuda {
namespace {

constexpr int kManyThreads = 256, kManyRows = 64;  // rows of a warpgroup
constexpr int64_t kManyNope = 128;                 // what nope must be

/// A block has COLUMNS of a head's.
template <Product P, int COLUMNS>
struct ManyShape {
  static constexpr bool kAbsorb = P == Product::absorb;
  static constexpr int kDepth = kAbsorb ? static_cast<int>(kManyNope) : static_cast<int>(kHopperRank);
  static constexpr int kColumns = COLUMNS;
  static constexpr int kAtOnce = COLUMNS > 128 ? 128 : 64;  // of a chain of products
  static constexpr int kRowPanelBytes = kManyRows * 128;
  static constexpr int kWeightPanelBytes = (kAbsorb ? kDepth : kColumns) * 128;  // absorb: k by 64 columns; values: columns by 64 k
  static constexpr int kWeightBytes = kColumns * kDepth * 2, kRowBytes = kManyRows * kDepth * 2;
  static constexpr size_t kSharedBytes = kWeightBytes + 2 * kRowBytes + 1024;
};

template <Product P, class W, int COLUMNS>
class ManyBlock {
  using S = ManyShape<P, COLUMNS>;
  static constexpr bool kAbsorb = S::kAbsorb;

 public:
  __device__ ManyBlock(const MlaDecodeParams& params, unsigned char* shared)
      : p(params), group(__shfl_sync(kAllLanes, static_cast<int>(threadIdx.x / 128), 0)), thread(static_cast<int>(threadIdx.x % 128)) {
    columns = kAbsorb ? static_cast<int>(p.kvRank) : static_cast<int>(p.vDim);
    const int tiles = columns / S::kColumns;
    head = static_cast<int>(blockIdx.x) / tiles;
    n0 = (static_cast<int>(blockIdx.x) - head * tiles) * S::kColumns;
    weightRow = head * (p.nope + p.vDim) + (kAbsorb ? 0 : p.nope + n0);
    weights = shared, rows = shared + S::kWeightBytes + group * S::kRowBytes;
  }

  __device__ void loadWeights() const {
    const W* matrix = static_cast<const W*>(p.kvB.data) + weightRow * p.kvB.columns + (kAbsorb ? n0 : 0);
    constexpr int kChunks = (kAbsorb ? S::kColumns : S::kDepth) / 8;  // of a stored row
#pragma unroll 4
    for (int i = static_cast<int>(threadIdx.x); i < S::kColumns * S::kDepth / 8; i += kManyThreads) {
      const int row = i / kChunks, chunk = i % kChunks;
      loadWeights8(reinterpret_cast<Bf16*>(weights + chunk / 8 * S::kWeightPanelBytes + swizzled128(row, chunk % 8)), matrix + row * p.kvB.columns + 8 * chunk, true);
    }
    commitCopies();
  }

  /// What comes next (../ahead.cuh). A warp calls.
  __device__ void askAhead(const Live& live) const { longcat::cuda::askAhead(p, live, head, n0 / S::kColumns, columns / S::kColumns); }

  /// Starts copying 64 rows from `first` on; zeros from `end` on. A warpgroup calls.
  __device__ void loadRows(int64_t first, int64_t end) const {
    constexpr int kChunks = S::kDepth / 8;
#pragma unroll 4
    for (int i = thread; i < kManyRows * kChunks; i += 128) {
      const int row = i / kChunks, chunk = i % kChunks;
      const bool live = first + row < end;
      const int64_t pair = (live ? first + row : first) * p.heads + head;
      const Bf16* from = kAbsorb ? numbersIn<Bf16>(p.q) + pair * (p.nope + p.rope) : numbersIn<Bf16>(p.qLatent) + pair * p.kvRank;
      copyAsync16(rows + chunk / 8 * S::kRowPanelBytes + swizzled128(row, chunk % 8), from + 8 * chunk, live);
    }
    commitCopies();
  }

  /// Products of the rows in shared memory, and their way out.
  __device__ void multiply(int64_t first, int64_t end) const {
#pragma unroll 1
    for (int n = 0; n < S::kColumns; n += S::kAtOnce) {
      float total[S::kAtOnce / 2] = {}, part[S::kAtOnce / 2];
      const uint64_t a = rowsOfK(rows);
      const uint64_t b = kAbsorb ? rowsAcrossK(weights + n / 64 * S::kWeightPanelBytes, S::kWeightPanelBytes) : rowsOfK(weights);
      constexpr int kQuarter = S::kDepth / 4;
#pragma unroll
      for (int quarter = 0; quarter < 4; ++quarter) {
        beginProducts();
#pragma unroll
        for (int k = quarter * kQuarter; k < (quarter + 1) * kQuarter; k += 16)
          productBf16<S::kAtOnce, kAbsorb>(part, furtherOn(a, k / 64 * S::kRowPanelBytes + k % 64 * 2),
                                           furtherOn(b, kAbsorb ? k * 128 : k / 64 * S::kWeightPanelBytes + k % 64 * 2), k != quarter * kQuarter);
        endProducts();
        waitProducts<0>();
        holdRegisters(part);
        const float scale = scaleOf(quarter * kQuarter, n);
#pragma unroll
        for (int i = 0; i < S::kAtOnce / 2; ++i) total[i] = __fadd_rn(total[i], sizeof(W) == 1 ? __fmul_rn(part[i], scale) : part[i]);
      }
      store(first, end, n, total);
    }
  }

 private:
  /// FP8: of all the block's columns from n on (128 at most) and a quarter of k from `k` on.
  __device__ float scaleOf(int k, int n) const {
    if constexpr (sizeof(W) == 1) return weightScale(p.kvB, weightRow + (kAbsorb ? k : 0), kAbsorb ? n0 + n : k);
    return 1;
  }

  __device__ void store(int64_t first, int64_t end, int n, const float (&total)[S::kAtOnce / 2]) const {
    const int lane = thread % 32;
    Bf16* to = kAbsorb ? numbersIn<Bf16>(p.qLatent) : numbersIn<Bf16>(p.out);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int64_t row = first + thread / 32 * 16 + lane / 4 + 8 * r;
      Bf16* mine = to + (row * p.heads + head) * columns + n0 + n + pairedColumn(lane & 3);
#pragma unroll
      for (int i = 0; i < S::kAtOnce / 16; ++i) {
        const uint2 pair = pairColumns(make_float4(total[8 * i + 2 * r], total[8 * i + 2 * r + 1], total[8 * i + 4 + 2 * r], total[8 * i + 5 + 2 * r]));
        if (row < end) *reinterpret_cast<uint2*>(mine + 16 * i) = pair;
      }
    }
  }

  const MlaDecodeParams& p;
  int group, thread, head, n0, columns;
  int64_t weightRow;
  unsigned char *weights, *rows;

 public:
  __device__ int warpgroup() const { return group; }
};

/// grid: x = heads · blocks of columns, y = pairs of 64 rows, every gridDim.y-th of which a block takes.
template <Product P, class W, int COLUMNS>
__global__ void __launch_bounds__(kManyThreads) headProductOfMany(const __grid_constant__ MlaDecodeParams p) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ unsigned char sharedBytes[];
  const ManyBlock<P, W, COLUMNS> block(p, sharedBytes + (-sharedAddress(sharedBytes) & 1023));
  block.loadWeights();  // which nobody writes
  awaitThenLetNextBegin();
  const Live live = liveOf(p);
  if (P == Product::absorb && blockIdx.y == 0 && threadIdx.x / 32 == kManyThreads / 32 - 1) block.askAhead(live);
  const auto arrived = [] {
    waitCopies<0>();
    fenceAsyncProxy();
  };
  const int64_t step = 2ll * gridDim.y * kManyRows;
  int64_t first = live.begin + (2 * static_cast<int64_t>(blockIdx.y) + block.warpgroup()) * kManyRows;
  if (first < live.rows) block.loadRows(first, live.rows);
  arrived();
  __syncthreads();  // the weights are there
  while (first < live.rows) {
    block.multiply(first, live.rows);
    if ((first += step) >= live.rows) break;
    syncSome(1 + block.warpgroup(), 128);  // the rows before have been read
    block.loadRows(first, live.rows);
    arrived();
    syncSome(1 + block.warpgroup(), 128);
  }
#else
  awaitPrevious();
#endif
}

}  // namespace
}  // namespace longcat::cuda
