// sample on a GPU: exponentials and their sums. A sum of exponentials is a whole number of 2^-63 in 128 bits: e ≤ 1 rounded to that
// unit once, then added exactly. So a sum does not depend on any order, a prefix found one way is the prefix found another way, and
// the error (2^-64 an id, against a sum that is at least 1) is below that of the CPU's running sums in float64.
#pragma once

#include "ops/sample/keys.cuh"

namespace longcat::cuda {

using Mass = unsigned __int128;

__device__ __forceinline__ uint64_t massOf(double e) { return __double2ull_rn(e * 0x1p63); }
__device__ __forceinline__ double doubleOf(Mass m) {
  return __ull2double_rn(static_cast<uint64_t>(m >> 64)) * 2.0 + __ull2double_rn(static_cast<uint64_t>(m)) * 0x1p-63;
}

/// The largest mass ≤ x (`up`: the smallest ≥ x), for 0 ≤ x < 2^60.
__device__ __noinline__ inline Mass massBound(double x, bool up) {
  const double high = floor(x * 0.5), low = (x - 2 * high) * 0x1p63;  // both exact
  Mass m = static_cast<Mass>(__double2ull_rz(high)) << 64 | __double2ull_rz(low);
  if (up && low != floor(low)) m += 1;
  return m;
}
__device__ __forceinline__ Mass clampMass(Mass m, Mass low, Mass high) { return m < low ? low : m > high ? high : m; }

__device__ __forceinline__ Mass shuffleUp(Mass v, int d) {
  const uint64_t high = __shfl_up_sync(kAllLanes, static_cast<unsigned long long>(v >> 64), d);
  const uint64_t low = __shfl_up_sync(kAllLanes, static_cast<unsigned long long>(v), d);
  return static_cast<Mass>(high) << 64 | low;
}

/// The warp's sum, to every lane: in pieces of 27 bits, of which 32 add up within 32. Each v is below 2^103.
__device__ inline Mass warpMass(Mass v) {
  constexpr int kPiece = 27;
  Mass sum = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const uint32_t piece = static_cast<uint32_t>(v >> (kPiece * i)) & ((1u << kPiece) - 1);
    sum += static_cast<Mass>(__reduce_add_sync(kAllLanes, piece)) << (kPiece * i);
  }
  return sum;
}
__device__ inline Mass warpInclusive(Mass v) {
  const int lane = threadIdx.x & 31;
#pragma unroll 1
  for (int d = 1; d < 32; d <<= 1) {
    const Mass lower = shuffleUp(v, d);
    if (lane >= d) v += lower;
  }
  return v;
}

/// The block's sum, to every thread. `shared`: kWarps masses.
__device__ __noinline__ inline Mass blockMass(Mass v, Mass* shared) {
  v = warpMass(v);
  __syncthreads();  // of an earlier use
  if ((threadIdx.x & 31) == 0) shared[threadIdx.x >> 5] = v;
  __syncthreads();
  return warpMass(shared[threadIdx.x & 31]);
}

/// The sum over this and all earlier threads; *total gets the block's. `shared`: kWarps masses.
__device__ __noinline__ inline Mass blockInclusive(Mass v, Mass* shared, Mass* total) {
  v = warpInclusive(v);
  const int warp = threadIdx.x >> 5;
  __syncthreads();  // of an earlier use
  if ((threadIdx.x & 31) == 31) shared[warp] = v;
  __syncthreads();
  const Mass warps = warpInclusive(shared[threadIdx.x & 31]);  // of the warps up to the lane's
  const uint64_t totalHigh = __shfl_sync(kAllLanes, static_cast<unsigned long long>(warps >> 64), 31);
  const uint64_t totalLow = __shfl_sync(kAllLanes, static_cast<unsigned long long>(warps), 31);
  *total = static_cast<Mass>(totalHigh) << 64 | totalLow;
  const int before = warp ? warp - 1 : 0;
  const uint64_t high = __shfl_sync(kAllLanes, static_cast<unsigned long long>(warps >> 64), before);
  const uint64_t low = __shfl_sync(kAllLanes, static_cast<unsigned long long>(warps), before);
  return warp ? v + (static_cast<Mass>(high) << 64 | low) : v;
}

/// Exponentials of a row's adjusted logits (step 3 of params.h), and the masses that minP leaves of them.
struct Exponential {
  double first, temperature, minP;
  bool flat;        // temperature 0, or nothing above −∞: all the mass is the first's
  bool divides;     // the temperature is not 1

  __device__ Exponential(const Row& row, double firstValue)
      : first(firstValue), temperature(row.field[SampleField::temperature]), minP(row.field[SampleField::minP] > 1 ? 1.0 : row.field[SampleField::minP]),
        flat(!(temperature > 0) || first == -static_cast<double>(INFINITY)), divides(temperature != 1) {}

  __device__ double operator()(double l) const {
    if (flat) return 0.0;
    if (l == first) return 1.0;
    const double x = __dsub_rn(l, first);
    return exp(divides ? __ddiv_rn(x, temperature) : x);
  }
  /// 0 where minP drops the id. Never for the first, whose exponential is 1.
  __device__ uint64_t keptMass(double l) const {
    const double e = (*this)(l);
    return e < minP ? 0 : massOf(e);
  }
  /// The same of several logits of a row that is not flat, side by side; 0 where there is no number.
  template <int N>
  __device__ __forceinline__ void keptMasses(const float (&logits)[N], uint64_t (&masses)[N]) const {
    double x[N];
#pragma unroll
    for (int i = 0; i < N; ++i) x[i] = __dsub_rn(logits[i], first);
    if (divides) {
#pragma unroll
      for (int i = 0; i < N; ++i) x[i] = __ddiv_rn(x[i], temperature);
    }
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const double e = logits[i] == first ? 1.0 : exp(x[i]);
      masses[i] = isnan(logits[i]) || e < minP ? 0 : massOf(e);
    }
  }
};

}  // namespace longcat::cuda
