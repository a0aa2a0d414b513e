// Partial results of units (units.cuh), and how they are added. Per unit and head: 512 sums of weighted latents, the maximum that the weights are
// relative to (of scores times log2 e), and the weights' sum. Units are added one after the other, in ascending order:
//   most' = max(most, maximum),  sums' = fma(unit's, 2^(maximum − most'), sums · 2^(most − most')),   the same for the weights' sum;
// in the end a latent is its sum times 1 / the weights' sum. Whether a block adds a unit to those it attended before, or this file's merge adds what
// several blocks left, each number goes through the same operations.
//
// Within a head's 512 numbers, columns 16 i … 16 i + 15 lie in the order of wgmma's fragments: 0 1 8 9 2 3 10 11 4 5 12 13 6 7 14 15.
#pragma once

#include "cuda/numbers.cuh"
#include "ops/mla_decode/units.cuh"

namespace longcat::cuda {
namespace {

constexpr int64_t kHopperRank = 512, kHopperRope = 64;

__device__ __forceinline__ float powerOfTwo(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
  return y;
}

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
  const __nv_bfloat162 low = __floats2bfloat162_rn(sums.x, sums.y), high = __floats2bfloat162_rn(sums.z, sums.w);
  const uint32_t a = *reinterpret_cast<const uint32_t*>(&low), b = *reinterpret_cast<const uint32_t*>(&high);
  const bool odd = threadIdx.x & 1;
  const uint32_t other = __shfl_xor_sync(kAllLanes, odd ? a : b, 1);
  return odd ? make_uint2(other, b) : make_uint2(a, other);
}
/// The first of those columns; `quad` is the lane within its four.
__device__ __forceinline__ int pairedColumn(int quad) { return quad & 1 ? 6 + 2 * quad : 2 * quad; }

/// The units of one row and head; none where the row is finished.
struct RowUnits {
  const float* sums;
  const float2* weights;
  int64_t sumsStride, weightsStride;
  int count;
};
/// `results`: WorkLine::resultsOf() the row.
__device__ __forceinline__ RowUnits unitsAt(const MlaDecodeParams& p, int2 results, int64_t head) {
  return {unitSums(p, results.x, head), unitWeights(p, results.x, head), p.heads * kHopperRank, p.heads, results.y};
}

__device__ __forceinline__ float inclusiveMax(float v) {
#pragma unroll
  for (int d = 1; d < 32; d <<= 1) v = fmaxf(v, __shfl_up_sync(kAllLanes, v, d));  // a lane below `d` gets its own
  return v;
}

/// Merges four columns in each of N pieces of 128 columns for each lane: `column` + 128 i … + 3 of the order above. False where the row is
/// finished. A whole warp calls, with the same units; a lane has the factors of one, which RunningMerge would come to. Sums of
/// kAtOnce units are asked for together.
template <int N, int kAtOnce>
__device__ __forceinline__ bool mergeUnits(const RowUnits& units, int column, int columns, float4 (&out)[N]) {
  if (units.count == 0) return false;
  const int lane = threadIdx.x & 31;
#pragma unroll
  for (int i = 0; i < N; ++i) out[i] = make_float4(-0.0f, -0.0f, -0.0f, -0.0f);  // what a sum of the first unit alone leaves as it is
  float most = -INFINITY, total = 0;
  for (int base = 0; base < units.count; base += 32) {
    const float2 weights = base + lane < units.count ? __ldcg(units.weights + (base + lane) * units.weightsStride) : make_float2(0, 0);
    uint32_t there = __ballot_sync(kAllLanes, weights.y != 0);
    const float maximum = weights.y != 0 ? weights.x : -INFINITY, larger = fmaxf(most, inclusiveMax(maximum));
    float smaller = __shfl_up_sync(kAllLanes, larger, 1);
    if (lane == 0) smaller = most;
    const float before = powerOfTwo(smaller - larger), next = powerOfTwo(maximum - larger);
    most = __shfl_sync(kAllLanes, larger, 31);
    while (there) {
      int unit[kAtOnce];
      float4 part[kAtOnce][N];
#pragma unroll
      for (int u = 0; u < kAtOnce; ++u) {
        unit[u] = there ? __ffs(static_cast<int>(there)) - 1 : -1;
        there &= there - 1;
#pragma unroll
        for (int i = 0; i < N; ++i)
          part[u][i] = unit[u] >= 0 && column + 128 * i < columns ? __ldcg(reinterpret_cast<const float4*>(units.sums + (base + unit[u]) * units.sumsStride + column + 128 * i)) : make_float4(0, 0, 0, 0);
      }
#pragma unroll
      for (int u = 0; u < kAtOnce; ++u) {
        if (unit[u] < 0) break;
        const RunningMerge step{0, 0, __shfl_sync(kAllLanes, before, unit[u]), __shfl_sync(kAllLanes, next, unit[u])};
        total = step.apply(total, __shfl_sync(kAllLanes, weights.y, unit[u]));
#pragma unroll
        for (int i = 0; i < N; ++i)
          out[i] = make_float4(step.apply(out[i].x, part[u][i].x), step.apply(out[i].y, part[u][i].y), step.apply(out[i].z, part[u][i].z), step.apply(out[i].w, part[u][i].w));
      }
    }
  }
  const float inverse = __frcp_rn(total);
#pragma unroll
  for (int i = 0; i < N; ++i) out[i].x *= inverse, out[i].y *= inverse, out[i].z *= inverse, out[i].w *= inverse;
  return true;
}

}  // namespace
}  // namespace longcat::cuda
