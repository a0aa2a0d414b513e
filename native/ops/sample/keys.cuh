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

/// The parameters and tables of one row (sample/row.h is the CPU's). In shared memory, since all threads have the same.
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

  __device__ void set(const SampleParams& p, int64_t r, int32_t tokenPosition) {
    const int64_t words = (p.vocabulary + 31) / 32, slot = p.logitSlot[r];
    const int listed = p.numAdjustments[slot];
    field = p.params + slot * kNumSampleFields;
    logits = p.logits + r * p.vocabulary;
    allowed = p.allowed;
    mask = isMasked(p, field) ? p.mask + slot * words : nullptr;
    penalised = isPenalised(field);
    biased = field[useBias] != 0;
    adjustments = p.adjustments + slot * p.maxAdjustments;
    numAdjustments = penalised || biased ? listed : 0;
    vocabulary = static_cast<int>(p.vocabulary);
    position = static_cast<uint32_t>(tokenPosition);
    const double k = field[SampleField::topK];
    topK = k >= 1 ? static_cast<int64_t>(k < static_cast<double>(vocabulary) ? k : static_cast<double>(vocabulary)) : 0;
  }

  /// Leaves the model's own logits: no penalty, bias or mask of the row.
  __device__ void makeRaw() { mask = nullptr, numAdjustments = 0; }
  __device__ bool plain() const { return numAdjustments == 0; }

  /// Place in the list of the first adjustment whose id is not below `id`. Whole warps ask for the same: the lanes look at 32 places at once.
  __device__ int placeOf(int id) const {
    int low = 0, high = numAdjustments;
    while (low < high) {
      const int step = (high - low + 31) / 32, first = low + static_cast<int>(threadIdx.x & 31) * step;
      const bool below = first < high && adjustments[min(first + step, high) - 1].id < id;
      low = min(low + step * __popc(__ballot_sync(kAllLanes, below)), high);
      if (step == 1) break;
      high = min(low + step, high);
    }
    return low;
  }

  /// The adjusted logit of one id of many that ascend; `place`: in the list, behind which the id's adjustment is not.
  __device__ double adjusted(int id, float logit, int& place) const {
    while (place < numAdjustments && adjustments[place].id < id) ++place;
    return place < numAdjustments && adjustments[place].id == id ? adjusted(adjustments[place], logit) : logit;
  }

  /// Step 2 of params.h. Each operation is rounded by itself, as on the CPU: no fused multiply-add.
  __device__ double adjusted(const Adjustment& a, float logit) const {
    double l = logit;
    if (penalised && a.count) {
      const double repetition = field[SampleField::repetition];
      l = l > 0 ? __ddiv_rn(l, repetition) : __dmul_rn(l, repetition);
      if (const int32_t generated = a.count & (kInPrompt - 1))
        l = __dsub_rn(l, __dadd_rn(__dmul_rn(field[SampleField::frequency], generated), field[SampleField::presence]));
    }
    return biased ? __dadd_rn(l, a.bias) : l;
  }
};

/// A logit's bits in its order; more than 0. NaN counts as −∞, and both zeros are one.
__device__ __forceinline__ uint32_t orderedBits(float logit) {
  uint32_t bits = __float_as_uint(logit);
  if (isnan(logit)) bits = 0xff800000u;
  if (logit == 0) bits = 0;
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float logitOf(uint32_t orderedBits) {
  return __uint_as_float(orderedBits >> 31 ? orderedBits & 0x7fffffffu : ~orderedBits);
}

/// The key of an adjusted logit. NaN counts as −∞, and both zeros are one.
__device__ __forceinline__ Key keyOfValue(double l, int id) {
  uint64_t bits = static_cast<uint64_t>(__double_as_longlong(l));
  if (isnan(l)) bits = 0xfff0000000000000u;
  if (l == 0) bits = 0;
  return {bits >> 63 ? ~bits : bits | 0x8000000000000000u, ~static_cast<uint32_t>(id)};
}

/// The key of an allowed id. `place`: see Row::adjusted.
template <bool kPlain>
__device__ __forceinline__ Key keyOf(const Row& row, int id, float logit, int& place) {
  const uint32_t low = ~static_cast<uint32_t>(id);
  if constexpr (kPlain) {
    return {static_cast<uint64_t>(orderedBits(logit)) << 32 | low, low};
  } else {
    return keyOfValue(row.adjusted(id, logit, place), id);
  }
}

/// The adjusted logit that a key was made of.
template <bool kPlain>
__device__ __forceinline__ double valueOf(uint64_t high) {
  if constexpr (kPlain) {
    return logitOf(static_cast<uint32_t>(high >> 32));
  } else {
    return __longlong_as_double(static_cast<long long>(high >> 63 ? high & 0x7fffffffffffffffu : ~high));
  }
}

/// The logits of the four ids from 4·quad on; 0 beyond the vocabulary.
__device__ __forceinline__ void loadLogits(const float* row, int vocabulary, bool aligned, int quad, float (&logits)[4]) {
  const int left = vocabulary - 4 * quad;
  row += 4 * quad;
  if (aligned && left >= 4) {
    const float4 v = *reinterpret_cast<const float4*>(row);
    logits[0] = v.x, logits[1] = v.y, logits[2] = v.z, logits[3] = v.w;
  } else {
#pragma unroll
    for (int j = 0; j < 4; ++j) logits[j] = j < left ? row[j] : 0.0f;
  }
}

/// Which of the four are in a set of ids (bits 0 to 3).
__device__ __forceinline__ uint32_t loadBits(const uint32_t* set, int vocabulary, int quad) {
  const uint32_t bits = set[quad >> 3] >> (4 * quad & 31) & 15u;
  const int left = vocabulary - 4 * quad;
  return left < 4 ? bits & ((1u << left) - 1) : bits;
}

/// Both: logits, and which ids may be drawn.
__device__ __forceinline__ uint32_t loadQuad(const Row& row, bool aligned, int quad, float (&logits)[4]) {
  const uint32_t bits = loadBits(row.allowed, row.vocabulary, quad) & (row.mask ? loadBits(row.mask, row.vocabulary, quad) : ~0u);
  loadLogits(row.logits, row.vocabulary, aligned, quad, logits);
  return bits;
}

__device__ __forceinline__ bool isAligned(const float* logits) { return (reinterpret_cast<uintptr_t>(logits) & 15) == 0; }
__device__ __forceinline__ int numQuads(int64_t vocabulary) { return static_cast<int>((vocabulary + 3) / 4); }
/// Each warp reads consecutive quads of its own, a multiple of 32: warps are in ascending order of ids.
__device__ __forceinline__ int quadsOfWarp(const Row& row) { return (numQuads(row.vocabulary) + kThreads - 1) / kThreads * 32; }

/// visit(key) for this thread's allowed ids, ascending. With kHeavy, `visit` is compiled once instead of eight times.
template <bool kPlain, bool kHeavy, class F>
__device__ __forceinline__ void forAllowed(const Row& row, const F& visit) {
  constexpr int kAhead = 2;  // loads under way together
  const bool aligned = isAligned(row.logits);
  const int width = quadsOfWarp(row), first = static_cast<int>(threadIdx.x >> 5) * width;
  const int end = min(first + width, numQuads(row.vocabulary));
  int place = kPlain ? 0 : row.placeOf(4 * first);
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
        if (bits[i / 4] >> (i & 3) & 1) visit(keyOf<kPlain>(row, 4 * (quad + 32 * (i / 4)) + (i & 3), logits[i / 4][i & 3], place));
    } else {
#pragma unroll 1
      for (int i = 0; i < 4 * kAhead; ++i) {
        float logit = 0;
        bool wanted = false;
#pragma unroll
        for (int j = 0; j < 4 * kAhead; ++j)  // no array that is indexed at run time: it would lie in memory
          if (i == j) logit = logits[j / 4][j & 3], wanted = bits[j / 4] >> (j & 3) & 1;
        if (wanted) visit(keyOf<kPlain>(row, 4 * (quad + 32 * (i / 4)) + (i & 3), logit, place));
      }
    }
  }
}

}  // namespace longcat::cuda
