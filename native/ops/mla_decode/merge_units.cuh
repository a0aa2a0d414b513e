// Partial results of units (units.cuh), and how they are added. Per unit and head: 512 sums of weighted latents, the maximum that the weights are
// relative to (of scores times log2 e), and the weights' sum. Units are added one after the other, in ascending order:
//   most' = max(most, maximum),  sums' = fma(unit's, 2^(maximum − most'), sums · 2^(most − most')),   the same for the weights' sum;
// in the end a latent is its sum times 1 / the weights' sum. Whether a block adds a unit to those it attended before, or this file's merge adds what
// several blocks left, each number goes through the same operations.
//
// Within a head's 512 numbers, columns 16 i … 16 i + 15 lie in the order of wgmma's fragments: 0 1 8 9 2 3 10 11 4 5 12 13 6 7 14 15;
// sums of blocks that have keys in rows, as keyRowsColumn() says.
#pragma once

#include "cuda/numbers.cuh"
#include "ops/mla_decode/units.cuh"

namespace longcat::cuda {
namespace {

constexpr int64_t kHopperRank = 512, kHopperRope = 64;

/// A row's sums so far: what comes in is multiplied by `next`, what was there by `before`.
struct RunningMerge {
  float most = -INFINITY, total = 0;
  float before = 0, next = 0;
  __device__ __forceinline__ void add(float maximum, float sum) {
    const float larger = fmaxf(most, maximum);
    before = powerOfTwo(most - larger), next = powerOfTwo(maximum - larger);
    total = apply(total, sum);
    most = larger;
  }
  __device__ __forceinline__ float apply(float sums, float unit) const { return fmaf(unit, next, __fmul_rn(sums, before)); }
  __device__ __forceinline__ float4 apply(float4 sums, float4 unit) const { return make_float4(apply(sums.x, unit.x), apply(sums.y, unit.y), apply(sums.z, unit.z), apply(sums.w, unit.w)); }
  __device__ __forceinline__ float inverse() const { return __frcp_rn(total); }
};

/// Where partial results lie. A weights' sum of zero: nothing does (the unit has been added to the one before).
__device__ __forceinline__ float* unitSums(const MlaDecodeParams& p, int64_t unit, int64_t head) { return p.partial + (unit * p.heads + head) * kHopperRank; }
__device__ __forceinline__ float2* unitWeights(const MlaDecodeParams& p, int64_t unit, int64_t head) {
  return reinterpret_cast<float2*>(p.partial + p.maxSplits * p.heads * kHopperRank) + unit * p.heads + head;
}

/// Eight consecutive bytes of bfloat16 columns for each lane of a pair: `sums` are columns 0 1 8 9 of the 16 (an even lane's) or 2 3 10 11 (the odd one's; or
/// 4 5 12 13, 6 7 14 15). An even lane has columns 0 … 3 (4 … 7) then, an odd one 8 … 11 (12 … 15). A whole warp calls.
__device__ __forceinline__ uint2 pairColumns(float4 sums) {
  const uint32_t a = bf16Pair(sums.x, sums.y), b = bf16Pair(sums.z, sums.w);
  const bool odd = threadIdx.x & 1;
  const uint32_t other = __shfl_xor_sync(kAllLanes, odd ? a : b, 1);
  return odd ? make_uint2(other, b) : make_uint2(a, other);
}
/// The first of those columns; `quad` is the lane within its four.
__device__ __forceinline__ int pairedColumn(int quad) { return quad & 1 ? 6 + 2 * quad : 2 * quad; }

/// Stores a warp's 128 (32) columns in their natural order, of which a lane has four (one) in the order above.
__device__ __forceinline__ void storeInOrder(Bf16* to, float4 mine) {
  const int lane = threadIdx.x & 31;
  const uint2 columns = pairColumns(mine);
  *reinterpret_cast<uint2*>(to + lane / 4 * 16 + pairedColumn(lane & 3)) = columns;
}
__device__ __forceinline__ void storeInOrder(Bf16* to, float mine) {
  const int lane = threadIdx.x & 31;
  to[(lane & 16) + (lane & 12) / 2 + (lane & 1) + 4 * (lane & 2)] = __float2bfloat16_rn(mine);
}

/// Where the number at `place` of a head's sums belongs: as blocks with keys in rows leave them (sm90/key_rows).
__device__ __forceinline__ int keyRowsColumn(int place) {
  const int warp = place / 64, panels = place / 32 % 2 * 2 + place / 2 % 2;
  return warp / 4 * 256 + panels * 64 + warp % 4 * 16 + place % 2 * 8 + place / 4 % 8;
}
__device__ __forceinline__ void storeByColumn(Bf16* to, int place, float mine) { to[keyRowsColumn(place)] = __float2bfloat16_rn(mine); }
__device__ __forceinline__ void storeByColumn(Bf16* to, int place, float4 mine) {
  const int column = keyRowsColumn(place);
  to[column] = __float2bfloat16_rn(mine.x), to[column + 8] = __float2bfloat16_rn(mine.y);
  to[column + 64] = __float2bfloat16_rn(mine.z), to[column + 72] = __float2bfloat16_rn(mine.w);
}
/// A lane's merged sums from `begin` of a warp's on, to their columns of a row.
template <class V>
__device__ __forceinline__ void storeMerged(const UnitCut& cut, Bf16* row, int begin, V mine) {
  if (cut.heads < kUnitHeads) storeByColumn(row, begin + static_cast<int>(threadIdx.x & 31) * static_cast<int>(sizeof(V) / sizeof(float)), mine);
  else storeInOrder(row + begin, mine);
}

/// The units of one row and head; none where the row is finished.
struct RowUnits {
  const float* sums;
  const float2* weights;
  int32_t heads, count;
};
/// `results`: WorkLine::resultsOf() the row.
__device__ __forceinline__ RowUnits unitsAt(const MlaDecodeParams& p, int2 results, int64_t head) {
  return {unitSums(p, results.x, head), unitWeights(p, results.x, head), static_cast<int32_t>(p.heads), results.y};
}

__device__ __forceinline__ float inclusiveMax(float v) {
#pragma unroll
  for (int d = 1; d < 32; d <<= 1) v = fmaxf(v, __shfl_up_sync(kAllLanes, v, d));  // a lane below `d` gets its own
  return v;
}

__device__ __forceinline__ float scaled(float v, float by) { return v * by; }
__device__ __forceinline__ float4 scaled(float4 v, float by) { return make_float4(v.x * by, v.y * by, v.z * by, v.w * by); }

/// Merges N pieces of a warp's columns, V's width of each for each lane: from `column` on, the lane's first, pieces one after the other in the order above.
/// False where the row is finished. A whole warp calls, with the same units; a lane has the factors of one, which RunningMerge would come to. Sums of
/// kAtOnce units are asked for together: where rows are few and units many, narrow columns leave registers for more of them, and the first are asked for
/// before it is known which there are.
template <class V, int N, int kAtOnce>
__device__ __forceinline__ bool mergeUnits(const RowUnits& units, int column, V (&out)[N]) {
  constexpr int kPiece = 32 * sizeof(V) / sizeof(float);
  constexpr bool kUnseen = kAtOnce * N >= 16;
  if (units.count == 0) return false;
  const int lane = threadIdx.x & 31, stride = units.heads * static_cast<int>(kHopperRank);
#pragma unroll
  for (int i = 0; i < N; ++i) out[i] = scaled(V{}, -1.0f);  // −0, which a sum of the first unit alone leaves as it is
  float most = -INFINITY, total = 0;
  for (int base = 0; base < units.count; base += 32) {
    const float2 weights = base + lane < units.count ? __ldcg(units.weights + (base + lane) * units.heads) : make_float2(0, 0);
    V part[kAtOnce][N];
    const auto ask = [&](int first, uint32_t which) {
#pragma unroll
      for (int u = 0; u < kAtOnce; ++u)
#pragma unroll
        for (int i = 0; i < N; ++i) {
          const float* sums = units.sums + static_cast<int64_t>(base + first + u) * stride + column + kPiece * i;
          part[u][i] = which >> u & 1 ? __ldcg(reinterpret_cast<const V*>(sums)) : V{};
        }
    };
    if constexpr (kUnseen) ask(0, units.count - base >= 32 ? ~0u : (1u << (units.count - base)) - 1);
    const uint32_t there = __ballot_sync(kAllLanes, weights.y != 0);
    const float maximum = weights.y != 0 ? weights.x : -INFINITY, larger = fmaxf(most, inclusiveMax(maximum));
    float smaller = __shfl_up_sync(kAllLanes, larger, 1);
    if (lane == 0) smaller = most;
    const float before = powerOfTwo(smaller - larger), next = powerOfTwo(maximum - larger);
    most = __shfl_sync(kAllLanes, larger, 31);
    for (int first = 0; first < 32 && there >> first; first += kAtOnce) {
      if (!kUnseen || first > 0) ask(first, there >> first);
#pragma unroll
      for (int u = 0; u < kAtOnce; ++u) {
        const int unit = first + u;
        if (!(there >> unit & 1)) continue;
        const RunningMerge step{0, 0, __shfl_sync(kAllLanes, before, unit), __shfl_sync(kAllLanes, next, unit)};
        total = step.apply(total, __shfl_sync(kAllLanes, weights.y, unit));
#pragma unroll
        for (int i = 0; i < N; ++i) out[i] = step.apply(out[i], part[u][i]);
      }
    }
  }
  const float inverse = __frcp_rn(total);
#pragma unroll
  for (int i = 0; i < N; ++i) out[i] = scaled(out[i], inverse);
  return true;
}

}  // namespace
}  // namespace longcat::cuda
