// Few decode rows wait for memory's latency, three launches one after the other: while queries are absorbed, what the next two read is on its way to the
// L2 cache of a Hopper.
#pragma once

#include "cuda/hopper/copy.cuh"
#include "ops/mla_decode/live.cuh"

namespace longcat::cuda {
namespace {

constexpr int64_t kAheadRows = 2;          // capacity up to which it pays
constexpr int64_t kAheadBytes = 12 << 20;  // of keys, the rows' first ones

__device__ __forceinline__ void askForBytes(const void* data, int64_t bytes) {
#if __CUDA_ARCH__ >= 900
  const uint64_t from = reinterpret_cast<uint64_t>(data), begin = (from + 15) / 16 * 16, end = (from + bytes) / 16 * 16;
  if (begin < end) prefetchBytes(reinterpret_cast<const void*>(begin), static_cast<uint32_t>(end - begin));
#endif
}

/// One of `blocks` blocks asks for its pages of the rows' keys.
__device__ __forceinline__ void askForKeys(const MlaDecodeParams& p, const Live& live, int block, int blocks) {
  const int64_t plainBytes = (p.kvRank + p.rope) * static_cast<int64_t>(sizeof(Bf16));
  const int64_t pageBytes = p.blockSize * (p.packedCache ? PackedLatents{p.kvRank, p.rope, p.blockSize}.rowBytes() : plainBytes);
  const int64_t most = kAheadBytes / (max(live.rows - live.begin, int64_t{1}) * pageBytes);  // pages of a row
  for (int64_t row = live.begin + (threadIdx.x & 31); row < live.rows; row += 32) {
    const int64_t pages = min(p.positions[row] / p.blockSize + 1, most);
    const int32_t* table = p.blockTables + p.rowSlot[row] * p.maxBlocks;
    for (int64_t page = block; page < pages; page += blocks) askForBytes(static_cast<const unsigned char*>(p.cache.data) + table[page] * pageBytes, pageBytes);
  }
}

/// Part `part` of `parts` of a head's W_v.
__device__ __forceinline__ void askForValues(const MlaDecodeParams& p, int64_t head, int part, int parts) {
  const int64_t rowBytes = p.kvB.columns * (p.kvB.dtype == DType::f8e4m3 ? 1 : 2), bytes = p.vDim * rowBytes / parts;
  if ((threadIdx.x & 31) == 0) askForBytes(static_cast<const unsigned char*>(p.kvB.data) + (head * (p.nope + p.vDim) + p.nope) * rowBytes + part * bytes, bytes);
}

/// A block that absorbs `head`, part `part` of `parts`, asks for its share of both. One warp calls, behind awaitPrevious().
__device__ __forceinline__ void askAhead(const MlaDecodeParams& p, const Live& live, int64_t head, int part, int parts) {
  if (p.capacity > kAheadRows) return;
  askForKeys(p, live, static_cast<int>(blockIdx.x), static_cast<int>(gridDim.x));
  askForValues(p, head, part, parts);
}

}  // namespace
}  // namespace longcat::cuda
