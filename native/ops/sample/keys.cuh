// sample on a GPU: a row's parameters, and its adjusted logits as integer keys in the order of rank.
#pragma once

#include <cstdint>

#include "cuda/reduce.cuh"
#include "ops/sample/params.h"

namespace longcat::cuda {

constexpr int kThreads = 1024;  // of the block that samples a row
constexpr int kWarps = kThreads / 32;

/// An id by rank: the greater (high, low) ranks before. `low` is ~id. Where no penalty and no bias is set, `high` is the logit's 32
/// ordered bits and again ~id; else it is the 64 ordered bits of the adjusted logit. (0, 0) ranks behind every id.
struct Key {
  uint64_t high;
  uint32_t low;
  __device__ int32_t id() const { return static_cast<int32_t>(~low); }
};
__device__ __forceinline__ bool ranksBefore(Key a, Key b) { return a.high > b.high || (a.high == b.high && a.low > b.low); }

/// The parameters and tables of one row (sample/row.h is the CPU's).
struct Row {
  const float* logits;
  const uint32_t* allowed;
  const uint32_t* mask;     // null: none
  const Adjustment* adjustments;
  int numAdjustments;       // 0 where no penalty or bias is set
  bool penalised, biased;
  int vocabulary;
  uint32_t position;
  const double* field;      // of the slot
  int64_t topK;             // 0: off

  __device__ Row(const SampleParams& p, int64_t r) {
    const int64_t slot = p.logitSlot[r], words = (p.vocabulary + 31) / 32;
    field = p.params + slot * kNumSampleFields;
    logits = p.logits + r * p.vocabulary;
    allowed = p.allowed;
    mask = field[useMask] != 0 ? p.mask + slot * words : nullptr;
    penalised = isPenalised(field);
    biased = field[useBias] != 0;
    adjustments = p.adjustments + slot * p.maxAdjustments;
    numAdjustments = penalised || biased ? p.numAdjustments[slot] : 0;
    vocabulary = static_cast<int>(p.vocabulary);
    position = static_cast<uint32_t>(p.logitPosition[r]);
    const double k = field[SampleField::topK];
    topK = k >= 1 ? static_cast<int64_t>(k < static_cast<double>(vocabulary) ? k : static_cast<double>(vocabulary)) : 0;
  }

  /// The model's own logits: no penalty, bias or mask of the row.
  __device__ Row raw() const {
    Row row = *this;
    row.mask = nullptr, row.numAdjustments = 0;
    return row;
  }
  __device__ bool plain() const { return numAdjustments == 0; }

  /// Place in the list of the first adjustment whose id is not below `id`.
  __device__ int placeOf(int id) const {
    int low = 0, high = numAdjustments;
    while (low < high) {
      const int middle = (low + high) >> 1;
      if (adjustments[middle].id < id) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /// Step 2 of params.h. Each operation is rounded by itself, as on the CPU: no fused multiply-add.
  __device__ double adjusted(int id, float logit) const {
    double l = logit;
    const int place = placeOf(id);
    if (place == numAdjustments || adjustments[place].id != id) return l;
    const Adjustment a = adjustments[place];
    if (penalised && a.count) {
      const double repetition = field[SampleField::repetition];
      l = l > 0 ? __ddiv_rn(l, repetition) : __dmul_rn(l, repetition);
      if (const int32_t generated = a.count & (kInPrompt - 1))
        l = __dsub_rn(l, __dadd_rn(__dmul_rn(field[SampleField::frequency], generated), field[SampleField::presence]));
    }
    return biased ? __dadd_rn(l, a.bias) : l;
  }
};

/// The key of an allowed id. NaN counts as −∞, and both zeros are one.
template <bool kPlain>
__device__ __forceinline__ Key keyOf(const Row& row, int id, float logit) {
  const uint32_t low = ~static_cast<uint32_t>(id);
  if constexpr (kPlain) {
    uint32_t bits = __float_as_uint(logit);
    if (isnan(logit)) bits = 0xff800000u;
    if (logit == 0) bits = 0;
    bits = bits >> 31 ? ~bits : bits | 0x80000000u;
    return {static_cast<uint64_t>(bits) << 32 | low, low};
  } else {
    const double l = row.adjusted(id, logit);
    uint64_t bits = static_cast<uint64_t>(__double_as_longlong(l));
    if (isnan(l)) bits = 0xfff0000000000000u;
    if (l == 0) bits = 0;
    return {bits >> 63 ? ~bits : bits | 0x8000000000000000u, low};
  }
}

/// The adjusted logit that a key was made of.
template <bool kPlain>
__device__ __forceinline__ double valueOf(uint64_t high) {
  if constexpr (kPlain) {
    const uint32_t bits = static_cast<uint32_t>(high >> 32);
    return __uint_as_float(bits >> 31 ? bits & 0x7fffffffu : ~bits);
  } else {
    return __longlong_as_double(static_cast<long long>(high >> 63 ? high & 0x7fffffffffffffffu : ~high));
  }
}

/// Four ids from 4·quad on: their logits, and which of them may be drawn (bits 0 to 3).
__device__ __forceinline__ uint32_t loadQuad(const Row& row, bool aligned, int quad, float (&logits)[4]) {
  const int id = 4 * quad, left = row.vocabulary - id;
  uint32_t bits = row.allowed[id >> 5];
  if (row.mask) bits &= row.mask[id >> 5];
  bits = bits >> (id & 31) & 15u;
  if (left < 4) bits &= (1u << left) - 1;
  if (aligned && left >= 4) {
    const float4 v = *reinterpret_cast<const float4*>(row.logits + id);
    logits[0] = v.x, logits[1] = v.y, logits[2] = v.z, logits[3] = v.w;
  } else {
#pragma unroll
    for (int j = 0; j < 4; ++j) logits[j] = j < left ? row.logits[id + j] : 0.0f;
  }
  return bits;
}

__device__ __forceinline__ bool alignedLogits(const Row& row) { return (reinterpret_cast<uintptr_t>(row.logits) & 15) == 0; }
__device__ __forceinline__ int numQuads(const Row& row) { return static_cast<int>((static_cast<int64_t>(row.vocabulary) + 3) / 4); }
/// Each warp reads consecutive quads of its own, a multiple of 32: warps are in ascending order of ids.
__device__ __forceinline__ int quadsOfWarp(const Row& row) { return (numQuads(row) + kThreads - 1) / kThreads * 32; }

/// visit(key) for this thread's allowed ids, ascending. With kHeavy, `visit` is compiled once instead of eight times.
template <bool kPlain, bool kHeavy, class F>
__device__ __forceinline__ void forAllowed(const Row& row, const F& visit) {
  constexpr int kAhead = 2;  // loads under way together
  const bool aligned = alignedLogits(row);
  const int width = quadsOfWarp(row), first = static_cast<int>(threadIdx.x >> 5) * width;
  const int end = min(first + width, numQuads(row));
  for (int quad = first + static_cast<int>(threadIdx.x & 31); quad < end; quad += 32 * kAhead) {
    float logits[kAhead][4];
    uint32_t bits[kAhead];
#pragma unroll
    for (int a = 0; a < kAhead; ++a) {
      bits[a] = 0;
      if (quad + 32 * a < end) bits[a] = loadQuad(row, aligned, quad + 32 * a, logits[a]);
    }
    if constexpr (kPlain && !kHeavy) {
#pragma unroll
      for (int i = 0; i < 4 * kAhead; ++i)
        if (bits[i / 4] >> (i & 3) & 1) visit(keyOf<kPlain>(row, 4 * (quad + 32 * (i / 4)) + (i & 3), logits[i / 4][i & 3]));
    } else {
#pragma unroll 1
      for (int i = 0; i < 4 * kAhead; ++i) {
        float logit = 0;
        bool wanted = false;
#pragma unroll
        for (int j = 0; j < 4 * kAhead; ++j)  // no array that is indexed at run time: it would lie in memory
          if (i == j) logit = logits[j / 4][j & 3], wanted = bits[j / 4] >> (j & 3) & 1;
        if (wanted) visit(keyOf<kPlain>(row, 4 * (quad + 32 * (i / 4)) + (i & 3), logit));
      }
    }
  }
}

}  // namespace longcat::cuda
