// One row of `sample` in plain float64 (params.h): its parameters, its adjusted logits, the greedy token, log-probabilities. Compiled
// once for every processor, so that a token does not depend on the instruction set. Included by op.cc alone.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "ops/sample/params.h"
#include "ops/token_logprobs/log_sum_exp.h"

namespace longcat {

constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();

/// An id with its adjusted logit, and later with its exponential.
struct SampleEntry {
  double value;
  int32_t id;
};

/// Greater value first, ties by lower id.
inline bool ranksBefore(const SampleEntry& a, const SampleEntry& b) {
  return a.value > b.value || (a.value == b.value && a.id < b.id);
}

/// The parameters and tables of one row. Sets of ids are words of 32: word w has ids 32·w to 32·w + 31.
struct SampleRow {
  const float* logits;
  const uint32_t* allowed;
  const uint32_t* mask;                     // null: none
  const Adjustment *adjustments, *endOfAdjustments;  // by ascending id, and behind the last; none where no penalty or bias is set
  bool isPenalised, isBiased;
  int64_t vocabulary, words;
  double temperature, topP, minP, repetition, presence, frequency, seed;
  int64_t topK;
  uint32_t position;

  SampleRow(const SampleParams& p, int64_t r, int32_t tokenPosition) {
    const int64_t slot = p.logitSlot[r];
    const double* f = p.params + slot * kNumSampleFields;
    vocabulary = p.vocabulary;
    words = (vocabulary + 31) / 32;
    logits = p.logits + r * vocabulary;
    allowed = p.allowed;
    mask = isMasked(p, f) ? p.mask + slot * words : nullptr;
    isPenalised = longcat::isPenalised(f);
    isBiased = f[useBias] != 0;
    adjustments = p.adjustments + slot * p.maxAdjustments;
    endOfAdjustments = adjustments + (isPenalised || isBiased ? p.numAdjustments[slot] : 0);
    temperature = f[SampleField::temperature];
    topP = f[SampleField::topP];
    minP = f[SampleField::minP];
    repetition = f[SampleField::repetition];
    presence = f[SampleField::presence];
    frequency = f[SampleField::frequency];
    seed = f[SampleField::seed];
    const double k = f[SampleField::topK];
    topK = k >= 1 ? static_cast<int64_t>(std::min(k, static_cast<double>(vocabulary))) : 0;
    position = static_cast<uint32_t>(tokenPosition);
  }

  bool isWhole(int64_t w) const { return vocabulary - 32 * w >= 32; }
  /// The tokenizer's ids.
  uint32_t existing(int64_t w) const { return isWhole(w) ? allowed[w] : allowed[w] & ((1u << (vocabulary - 32 * w)) - 1); }
  /// Of these the ones that the row's mask lets through.
  uint32_t drawable(int64_t w) const { return mask ? existing(w) & mask[w] : existing(w); }
  bool isDrawable(int32_t id) const { return drawable(id / 32) >> id % 32 & 1; }

  /// Calls visit(id) for each id of the set that setOf(w) gives word by word, ascending, until it returns false.
  template <class Set, class F>
  void forIds(const Set& setOf, const F& visit) const {
    for (int64_t w = 0; w < words; ++w)
      if (!forBits(w, setOf(w), visit)) return;
  }
  template <class F>
  static bool forBits(int64_t w, uint32_t bits, const F& visit) {
    for (; bits; bits &= bits - 1)
      if (!visit(static_cast<int32_t>(32 * w + std::countr_zero(bits)))) return false;
    return true;
  }

  /// Logits without adjustment. NaN counts as −∞.
  double plain(int64_t id) const { return numberOf(logits[id]); }
  static double numberOf(double l) { return std::isnan(l) ? kMinusInfinity : l; }

  /// Step 2. Both sides of each choice are computed, for none of them can be foreseen.
  double adjusted(const Adjustment& a) const {
    double l = logits[a.id];
    if (isPenalised) {
      const double repeated = l > 0 ? l / repetition : l * repetition;
      l = a.count ? repeated : l;
      const int32_t generated = a.count & (kInPrompt - 1);
      const double penalised = l - (frequency * generated + presence);
      l = generated ? penalised : l;
    }
    if (isBiased) l += a.bias;
    return numberOf(l);
  }

  /// Whether no id's adjusted logit is above its logit.
  bool adjustmentsOnlyLower() const { return !isBiased && repetition >= 1 && presence >= 0 && frequency >= 0; }

  /// Step 2 of all ids.
  void adjust(double* values) const {
    for (int64_t id = 0; id < vocabulary; ++id) values[id] = plain(id);
    for (const Adjustment* a = adjustments; a < endOfAdjustments; ++a) values[a->id] = adjusted(*a);
  }
};

/// Whether one of 32 numbers is more than `bound`.
template <class T>
bool anyBeyond(const T* x, T bound) {
  int32_t beyond = 0;
  for (int i = 0; i < 32; ++i) beyond += x[i] > bound;
  return beyond != 0;
}

/// The largest adjusted logit, ties by lower id; −1 where no id may be drawn.
inline int32_t greedyToken(const SampleRow& row) {
  SampleEntry best = {kMinusInfinity, -1};
  float below = 0;  // of floats only those beyond this one are as large as the best
  const auto consider = [&](SampleEntry entry) {
    if (best.id >= 0 && !ranksBefore(entry, best)) return true;
    best = entry;
    below = std::nextafter(static_cast<float>(best.value), -std::numeric_limits<float>::infinity());
    return true;
  };
  const Adjustment* next = row.adjustments;
  for (int64_t w = 0; w < row.words; ++w) {
    if (best.value > kMinusInfinity && row.isWhole(w) && !anyBeyond(row.logits + 32 * w, below)) continue;  // nearly always
    uint32_t plain = row.drawable(w);
    while (next < row.endOfAdjustments && next->id < 32 * w) ++next;
    for (const Adjustment* a = next; a < row.endOfAdjustments && a->id < 32 * (w + 1); ++a) plain &= ~(1u << a->id % 32);
    SampleRow::forBits(w, plain, [&](int32_t id) { return consider({row.plain(id), id}); });
  }
  const bool onlyLowered = row.adjustmentsOnlyLower();
  for (const Adjustment* a = row.adjustments; a < row.endOfAdjustments; ++a) {
    if (best.value > kMinusInfinity && onlyLowered && !(row.logits[a->id] > below)) continue;
    if (row.isDrawable(a->id)) consider({row.adjusted(*a), a->id});
  }
  return best.id;
}

/// The `limit` most probable existing ids by raw logit, ties by lower id; entries beyond are (−1, the floor).
inline void listLogprobs(const SampleRow& row, int limit, double logSum, int32_t* ids, float* logprobs) {
  SampleEntry best[kMaxLogprobs];
  int count = 0;
  if (limit > 0)
    row.forIds([&](int64_t w) { return row.existing(w); }, [&](int32_t id) {
      const double l = row.plain(id);
      if (count == limit && !(l > best[count - 1].value)) return true;
      int j = count < limit ? count++ : count - 1;
      for (; j > 0 && l > best[j - 1].value; --j) best[j] = best[j - 1];
      best[j] = {l, id};
      return true;
    });
  for (int j = 0; j < kMaxLogprobs; ++j) {
    ids[j] = j < count ? best[j].id : -1;
    logprobs[j] = j < count ? logprobOf(static_cast<float>(best[j].value), logSum) : kLogprobFloor;
  }
}

}  // namespace longcat
