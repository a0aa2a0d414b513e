// ngram_embed on a GPU. A row's pieces of all tables, side by side, are one vector of `hidden` numbers, and the projections side by side
// one matrix: a block gathers the pieces of a tile of rows to shared memory (tables may lie in host memory: only these rows are touched,
// and few blocks ask for the same ones) and multiplies.
//
// With bf16 tables and projections whose width is a multiple of 32, tensor cores do it: the 32-wide steps through the tables are cut in
// kParts runs, each one chain of m16n8k16, and the runs are added in ascending order. Anything else: lane l of 32 adds the products at
// l, l + 32, … of the whole vector in ascending order, then a butterfly. Shapes, dtypes and the card alone choose. Few rows have a kernel of
// their own on Hopper (sm90/few.cu), with the same sums.
#include "ops/ngram_embed/params.h"

#include "cuda/dependent.cuh"
#include "cuda/launch.cuh"
#include "cuda/reduce.cuh"
#include "ops/ngram_embed/rows.cuh"
#include "ops/ngram_embed/sm90/few.h"

namespace longcat::cuda {
namespace {

/// ids[r][i] for rows [first, first + kRows) and tables i; behind them, ids[r][numTables], the row's own token. 0 beyond the live rows.
/// The block's threads call; a barrier is due afterwards.
template <int kRows>
__device__ __forceinline__ void findIds(const NgramEmbedParams& p, int64_t first, int64_t rows, int32_t* ids) {
  const int perRow = p.numTables + 1;
  for (int i = static_cast<int>(threadIdx.x); i < kRows * perRow; i += static_cast<int>(blockDim.x)) {
    const int64_t r = first + i / perRow;
    const int table = i % perRow;
    ids[i] = r >= rows ? 0 : table == p.numTables ? tokenOf(p, r) : idOf(p, r, table);
  }
}

// ---- Tensor cores ----

constexpr int kGroups = 2, kGroupOutputs = 32;   // of a chunk of outputs
constexpr int kChunk = kGroups * kGroupOutputs;
constexpr int kThreads = kParts * kGroups * 32;  // a warp has one run of k
constexpr int kAhead = 4;                        // steps whose weights are loaded at once
constexpr int kPartStride = kChunk + 4;          // floats from row to row of a part: no two lanes of a store meet in a bank

/// Shared memory of a tile of rows.
struct Tile {
  int64_t pieceStride;  // bf16 numbers from row to row: 64 bytes beyond a multiple of 128, so that no two lanes of a load meet
  size_t pieces, parts, ids;
  size_t bytes() const { return pieces + parts + ids; }
};

LONGCAT_ANYWHERE inline Tile tileOf(const NgramEmbedParams& p, int rows) {
  Tile tile;
  tile.pieceStride = (p.wordTable.columns + 63) / 64 * 64 + 32;
  tile.pieces = static_cast<size_t>(rows * tile.pieceStride) * sizeof(Bf16);
  tile.parts = static_cast<size_t>(kParts) * rows * kPartStride * sizeof(float);
  tile.ids = static_cast<size_t>(rows) * (p.numTables + 1) * sizeof(int32_t);
  return tile;
}

/// The rows' pieces, bit by bit as the tables have them; zeros for rows that are not there. kWhole: every table is aligned.
template <int kRows, bool kWhole>
__device__ __forceinline__ void gatherPieces(const NgramEmbedParams& p, int live, const int32_t* ids, Bf16* pieces, int64_t stride) {
  const int octets = static_cast<int>(p.wordTable.columns / kOctet), width = static_cast<int>(tableWidth(p));
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x); i < kRows * octets; i += kThreads) {
    const int r = i / octets, k = i % octets * kOctet, table = k / width;
    const uint4 bits = r < live ? loadPieces<kWhole>(p, table, ids[r * (p.numTables + 1) + table], k) : make_uint4(0, 0, 0, 0);
    *reinterpret_cast<uint4*>(pieces + r * stride + k) = bits;
  }
}

/// A warp's part of kGroupOutputs outputs from `output` on: a run of k, for all rows of the tile.
template <int kTiles>
__device__ __forceinline__ void multiplyPart(const NgramEmbedParams& p, int64_t output, const Run& run, const Bf16* pieces, int64_t stride, float (&sum)[2][kTiles][4]) {
  const int lane = static_cast<int>(threadIdx.x) & 31, group = lane >> 2, quad = lane & 3;
  int64_t outputs[4];  // of this lane; past the end, the last one again
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const int64_t o = output + group + 8 * j, last = p.wordTable.columns - 1;
    outputs[j] = o < last ? o : last;
  }
  for (int base = run.begin; base < run.end; base += kAhead) {
    uint4 w[kAhead][4];
#pragma unroll
    for (int s = 0; s < kAhead; ++s) {
      const int step = base + s < run.end ? base + s : run.end - 1;
#pragma unroll
      for (int j = 0; j < 4; ++j) w[s][j] = __ldg(weightsAt(p, step, outputs[j]));
    }
#pragma unroll
    for (int s = 0; s < kAhead; ++s) {
      if (base + s >= run.end) break;
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        const uint4 x = *reinterpret_cast<const uint4*>(pieces + (t * 8 + group) * stride + (base + s) * kStep + quad * kOctet);
#pragma unroll
        for (int m = 0; m < 2; ++m) multiplyStep(sum[m][t], w[s][2 * m], w[s][2 * m + 1], x);
      }
    }
  }
}

/// One chunk of outputs for the tile's rows: parts side by side in shared memory, then added up.
template <int kTiles>
__device__ __forceinline__ void projectChunk(const NgramEmbedParams& p, int64_t first, int live, int64_t output, const Bf16* pieces, int64_t stride,
                                             float* parts, const int32_t* ids) {
  constexpr int kRows = kTiles * 8;
  const int warp = static_cast<int>(threadIdx.x) >> 5, lane = static_cast<int>(threadIdx.x) & 31, part = warp / kGroups, group = warp % kGroups;
  float sum[2][kTiles][4] = {};
  multiplyPart<kTiles>(p, output + group * kGroupOutputs, Run(p, part), pieces, stride, sum);
  // Element (output lane/4 [+ 8], row 2 (lane % 4) [+ 1]) of each m16n8.
  float* mine = parts + part * kRows * kPartStride + group * kGroupOutputs;
#pragma unroll
  for (int m = 0; m < 2; ++m) {
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int row = t * 8 + 2 * (lane & 3) + (e & 1), column = m * 16 + (lane >> 2) + (e >> 1) * 8;
        mine[row * kPartStride + column] = sum[m][t][e];
      }
    }
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kChunk; i += kThreads) {
    const int row = i / kChunk, column = i % kChunk;
    if (row >= live || output + column >= p.wordTable.columns) continue;
    float projected = parts[row * kPartStride + column];
#pragma unroll
    for (int s = 1; s < kParts; ++s) projected += parts[(s * kRows + row) * kPartStride + column];
    const int64_t o = output + column;
    writeMean(p, first + row, o, wordOf(p, ids[row * (p.numTables + 1) + p.numTables], o), projected);
  }
  __syncthreads();
}

/// Into how many pieces the outputs of a tile of rows are cut. One piece gathers each table row once; many pieces share the projections'
/// bytes among more multiprocessors. Tables in host memory balance near chunks / √rows, tables on the card further up: twice that.
__device__ __forceinline__ int piecesOf(int64_t rows, int chunks) {
  const int wanted = static_cast<int>(2.0f * static_cast<float>(chunks) / sqrtf(static_cast<float>(rows)));
  return wanted < 1 ? 1 : wanted < chunks ? wanted : chunks;
}

template <int kTiles, bool kWhole>
__global__ void __launch_bounds__(kThreads) embedTiles(const __grid_constant__ NgramEmbedParams p) {
  awaitPrevious();
  extern __shared__ uint4 dynamicShared[];
  constexpr int kRows = kTiles * 8;
  const Tile tile = tileOf(p, kRows);
  auto* bytes = reinterpret_cast<std::byte*>(dynamicShared);
  auto* pieces = reinterpret_cast<Bf16*>(bytes);
  auto* parts = reinterpret_cast<float*>(bytes + tile.pieces);
  auto* ids = reinterpret_cast<int32_t*>(bytes + tile.pieces + tile.parts);
  const int64_t rows = liveRows(p.rows, p.capacity);
  if (rows == 0) return;
  const int chunks = static_cast<int>((p.wordTable.columns + kChunk - 1) / kChunk), perTile = piecesOf(rows, chunks);
  for (int64_t task = blockIdx.x; task < (rows + kRows - 1) / kRows * perTile; task += gridDim.x) {
    const int64_t first = task / perTile * kRows;
    const int live = static_cast<int>(rows - first < kRows ? rows - first : kRows), piece = static_cast<int>(task % perTile);
    findIds<kRows>(p, first, rows, ids);
    __syncthreads();
    gatherPieces<kRows, kWhole>(p, live, ids, pieces, tile.pieceStride);
    __syncthreads();
    for (int chunk = piece * chunks / perTile; chunk < (piece + 1) * chunks / perTile; ++chunk)
      projectChunk<kTiles>(p, first, live, static_cast<int64_t>(chunk) * kChunk, pieces, tile.pieceStride, parts, ids);
  }
}

// ---- Any shapes and dtypes ----

constexpr int kAnyRows = 8, kAnyOutputs = 4;  // of a warp
constexpr int kAnyWarps = 8;
constexpr int kAnyStage = 256;                // numbers of each row in shared memory at once

/// staged[r][k - begin] for k in [begin, end): zeros for rows that are not there.
__device__ __forceinline__ void stagePieces(const NgramEmbedParams& p, int64_t begin, int64_t end, int64_t live, const int32_t* ids,
                                            float (&staged)[kAnyRows][kAnyStage]) {
  const int64_t width = tableWidth(p);
  for (int i = static_cast<int>(threadIdx.x); i < kAnyRows * kAnyStage; i += kAnyWarps * 32) {
    const int r = i / kAnyStage;
    const int64_t k = begin + i % kAnyStage;
    if (k >= end) continue;
    const int table = static_cast<int>(k / width);
    const WeightView& from = p.tables[table];
    staged[r][i % kAnyStage] = r < live ? loadNumber(from.data, from.dtype, ids[r * (p.numTables + 1) + table] * width + (k - table * width)) : 0.0f;
  }
}

/// Block (x, y): outputs from 32 x on, tiles of rows y, y + gridDim.y, …
template <class W>
__global__ void __launch_bounds__(kAnyWarps * 32) embedAny(const __grid_constant__ NgramEmbedParams p) {
  awaitPrevious();
  __shared__ float staged[kAnyRows][kAnyStage];
  __shared__ int32_t ids[kAnyRows * (kMaxNgramTables + 1)];
  const int64_t rows = liveRows(p.rows, p.capacity), hidden = p.wordTable.columns, width = tableWidth(p);
  const int lane = static_cast<int>(threadIdx.x) & 31, warp = static_cast<int>(threadIdx.x) >> 5;
  const int64_t output = (static_cast<int64_t>(blockIdx.x) * kAnyWarps + warp) * kAnyOutputs;
  int64_t weightRow[kAnyOutputs];  // past the end, the last one again
#pragma unroll
  for (int o = 0; o < kAnyOutputs; ++o) weightRow[o] = (output + o < hidden ? output + o : hidden - 1) * width;
  for (int64_t first = static_cast<int64_t>(blockIdx.y) * kAnyRows; first < rows; first += static_cast<int64_t>(gridDim.y) * kAnyRows) {
    __syncthreads();  // of the tile before
    findIds<kAnyRows>(p, first, rows, ids);
    float sum[kAnyRows][kAnyOutputs] = {};
    for (int64_t begin = 0; begin < hidden; begin += kAnyStage) {
      const int64_t end = begin + kAnyStage < hidden ? begin + kAnyStage : hidden;
      __syncthreads();
      stagePieces(p, begin, end, rows - first, ids, staged);
      __syncthreads();
#pragma unroll 2
      for (int64_t k = begin + lane; k < end; k += 32) {
        const int table = static_cast<int>(k / width);
        const W* weights = static_cast<const W*>(p.projectionData[table]) + (k - table * width);
        float w[kAnyOutputs];
#pragma unroll
        for (int o = 0; o < kAnyOutputs; ++o) w[o] = floatOf(weights[weightRow[o]]);
#pragma unroll
        for (int r = 0; r < kAnyRows; ++r) {
          const float x = staged[r][k - begin];
#pragma unroll
          for (int o = 0; o < kAnyOutputs; ++o) sum[r][o] = fmaf(x, w[o], sum[r][o]);
        }
      }
    }
#pragma unroll
    for (int r = 0; r < kAnyRows; ++r) {
#pragma unroll
      for (int o = 0; o < kAnyOutputs; ++o) {
        const float projected = warpSum(sum[r][o]);
        if (lane != 0 || first + r >= rows || output + o >= hidden) continue;
        writeMean(p, first + r, output + o, wordOf(p, ids[r * (p.numTables + 1) + p.numTables], output + o), projected);
      }
    }
  }
}

// ---- Choice ----

bool onTensorCores(const NgramEmbedParams& p) {
  if (p.projectionDtype != DType::bf16 || p.wordTable.columns / p.numTables % kStep != 0) return false;
  for (int i = 0; i < p.numTables; ++i) {
    if (p.tables[i].dtype != DType::bf16 || reinterpret_cast<uintptr_t>(p.projectionData[i]) % 16 != 0) return false;
  }
  return true;
}

template <int kTiles>
void launchTiles(const CudaContext& context, const NgramEmbedParams& p) {
  bool whole = true;
  for (int i = 0; i < p.numTables; ++i) whole = whole && reinterpret_cast<uintptr_t>(p.tables[i].data) % 16 == 0;
  if (whole ? embedFewRows<true>(context, p) : embedFewRows<false>(context, p)) return;
  const int grid = persistentGrid(context, ceilDiv(p.capacity, kTiles * 8) * ceilDiv(p.wordTable.columns, kChunk));
  launch(context, whole ? embedTiles<kTiles, true> : embedTiles<kTiles, false>, grid, kThreads, tileOf(p, kTiles * 8).bytes(), p);
}

template <class W>
void launchAny(const CudaContext& context, const NgramEmbedParams& p) {
  const dim3 grid(static_cast<unsigned>(ceilDiv(p.wordTable.columns, kAnyWarps * kAnyOutputs)),
                  static_cast<unsigned>(std::min<int64_t>(ceilDiv(p.capacity, kAnyRows), 1024)));
  launch(context, embedAny<W>, grid, kAnyWarps * 32, 0, p);
}

}  // namespace

void ngram_embed(const void* params, const CudaContext& context) {
  const auto& p = *static_cast<const NgramEmbedParams*>(params);
  const auto fits = [&](int rows) { return tileOf(p, rows).bytes() <= static_cast<size_t>(context.sharedBytes); };
  if (onTensorCores(p) && fits(8)) {
    if (p.capacity > 8 && fits(16)) launchTiles<2>(context, p);
    else launchTiles<1>(context, p);
  } else if (p.projectionDtype == DType::bf16) {
    launchAny<Bf16>(context, p);
  } else {
    launchAny<float>(context, p);
  }
}

}  // namespace longcat::cuda
