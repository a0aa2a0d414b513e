// One row's draw: the steps of params.h in plain float64, compiled once for every processor so that a draw does not depend on the
// instruction set. Included by op.cc alone.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "ops/sample/params.h"
#include "ops/sample/philox.h"
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

/// The parameters and tables of one row.
struct SampleRow {
  const float* logits;
  const uint32_t* allowed;
  const uint32_t* mask;      // null: none
  const float* bias;         // null: none
  const int32_t* counts;     // null: no penalty is set
  int64_t vocabulary;
  double temperature, topP, minP, repetition, presence, frequency, seed;
  int64_t topK;
  uint32_t position;

  SampleRow(const SampleParams& p, int64_t r) {
    const int64_t slot = p.logitSlot[r], words = (p.vocabulary + 31) / 32;
    const double* f = p.params + slot * kNumSampleFields;
    logits = p.logits + r * p.vocabulary;
    allowed = p.allowed;
    mask = f[useMask] != 0 ? p.mask + slot * words : nullptr;
    bias = f[useBias] != 0 ? p.bias + slot * p.vocabulary : nullptr;
    const bool penalised = f[SampleField::repetition] != 1 || f[SampleField::presence] != 0 || f[SampleField::frequency] != 0;
    counts = penalised ? p.tokenCounts + slot * p.vocabulary : nullptr;
    vocabulary = p.vocabulary;
    temperature = f[SampleField::temperature];
    topP = f[SampleField::topP];
    minP = f[SampleField::minP];
    repetition = f[SampleField::repetition];
    presence = f[SampleField::presence];
    frequency = f[SampleField::frequency];
    seed = f[SampleField::seed];
    const double k = f[SampleField::topK];
    topK = k >= 1 ? static_cast<int64_t>(std::min(k, static_cast<double>(vocabulary))) : 0;
    position = static_cast<uint32_t>(p.logitPosition[r]);
  }

  /// Step 2. NaN counts as −∞.
  double adjusted(int64_t id) const {
    double l = logits[id];
    if (counts && counts[id]) {
      l = l > 0 ? l / repetition : l * repetition;
      if (const int32_t generated = counts[id] & (kInPrompt - 1)) l -= frequency * generated + presence;
    }
    if (bias) l += bias[id];
    return std::isnan(l) ? kMinusInfinity : l;
  }

  /// Calls visit(id) for each allowed id, ascending, until it returns false.
  template <class F>
  void forAllowed(bool useRowMask, const F& visit) const {
    for (int64_t base = 0, w = 0; base < vocabulary; base += 32, ++w) {
      uint32_t bits = allowed[w] & (useRowMask && mask ? mask[w] : ~0u);
      if (vocabulary - base < 32) bits &= (1u << (vocabulary - base)) - 1;
      if (bits == ~0u) {
        for (int64_t id = base; id < base + 32; ++id)
          if (!visit(static_cast<int32_t>(id))) return;
      } else {
        for (; bits; bits &= bits - 1)
          if (!visit(static_cast<int32_t>(base + __builtin_ctz(bits)))) return;
      }
    }
  }
};

/// The largest adjusted logit, ties by lower id; −1 where no id is allowed.
inline int32_t greedyToken(const SampleRow& row) {
  int32_t best = -1;
  double bestValue = kMinusInfinity;
  const bool plain = !row.counts && !row.bias;
  row.forAllowed(true, [&](int32_t id) {
    const double l = plain ? static_cast<double>(row.logits[id]) : row.adjusted(id);
    if (l > bestValue || best < 0) {
      best = id;
      bestValue = l > kMinusInfinity ? l : kMinusInfinity;
    }
    return true;
  });
  return best;
}

/// The ids in drawing order: the `count` best in order of rank, as exponentials; all other allowed ids (the tail) ascending.
class Candidates {
 public:
  /// `entries` has room for the vocabulary. Step 3 says how many candidates there are.
  Candidates(const SampleRow& row, SampleEntry* entries) : row_(row), entries_(entries) {
    rank(row.topK ? row.topK : kFirstCandidates);
    if (row.topK || row.topP >= 1 || !tailCount()) return;
    const double goal = row.topP * (sum() + tailSum());
    for (int64_t limit = kFirstCandidates; sum() < goal && tailCount();) rank(limit *= kMoreCandidates);
  }

  int64_t count() const { return count_; }
  int64_t tailCount() const { return allowedCount_ - count_; }
  const SampleEntry* entries() const { return entries_; }

  /// Calls visit(id, e) for the tail's ids, ascending, until it returns false.
  template <class F>
  void forTail(const F& visit) const {
    if (!tailCount()) return;
    row_.forAllowed(true, [&](int32_t id) {
      const double l = row_.adjusted(id);
      if (!ranksBefore(last_, {l, id})) return true;  // a candidate
      return static_cast<bool>(visit(id, exponential(l)));
    });
  }

  double tailSum() const {
    double sum = 0;
    forTail([&](int32_t, double e) { return sum += e, true; });
    return sum;
  }

 private:
  /// e = exp((l − l_first) / temperature). With temperature 0, or nothing above −∞, all the mass is the first's.
  double exponential(double l) const {
    if (!(row_.temperature > 0) || first_ == kMinusInfinity) return 0.0;
    return l == first_ ? 1.0 : std::exp((l - first_) / row_.temperature);
  }

  /// The `limit` best, as exponentials.
  void rank(int64_t limit) {
    select(std::min(limit, row_.vocabulary));
    if (!count_) return;
    first_ = entries_[0].value;
    last_ = entries_[count_ - 1];
    for (int64_t j = 0; j < count_; ++j) entries_[j].value = j ? exponential(entries_[j].value) : 1.0;
  }

  double sum() const {
    double sum = 0;
    for (int64_t j = 0; j < count_; ++j) sum += entries_[j].value;
    return sum;
  }

  /// The best of all allowed ids by a heap whose top is the worst one kept.
  void select(int64_t limit) {
    count_ = allowedCount_ = 0;
    row_.forAllowed(true, [&](int32_t id) {
      const double l = row_.adjusted(id);
      ++allowedCount_;
      if (count_ < limit) {
        entries_[count_++] = {l, id};
        if (count_ == limit) std::make_heap(entries_, entries_ + count_, ranksBefore);
      } else if (l > entries_[0].value) {
        replaceTop({l, id});
      }
      return true;
    });
    std::sort(entries_, entries_ + count_, ranksBefore);
  }

  void replaceTop(SampleEntry entry) {
    int64_t hole = 0;
    for (int64_t child; (child = 2 * hole + 1) < count_; hole = child) {
      if (child + 1 < count_ && ranksBefore(entries_[child], entries_[child + 1])) ++child;
      if (!ranksBefore(entry, entries_[child])) break;
      entries_[hole] = entries_[child];
    }
    entries_[hole] = entry;
  }

  const SampleRow& row_;
  SampleEntry* entries_;
  int64_t count_ = 0, allowedCount_ = 0;
  double first_ = 0;
  SampleEntry last_{};
};

/// Steps 4 and 5 over candidates; `entries` is their storage and is compacted here.
inline int32_t drawToken(const SampleRow& row, const Candidates& candidates, SampleEntry* entries) {
  if (!candidates.count()) return -1;
  bool tail = row.topK == 0 && candidates.tailCount() > 0;
  const int64_t limit = row.topK ? std::min(row.topK, candidates.count()) : candidates.count();
  if (entries[candidates.count() - 1].value < row.minP) tail = false;  // ranked last of the candidates: the tail is below it
  int64_t kept = 1;
  for (int64_t j = 1; j < limit; ++j)
    if (!(entries[j].value < row.minP)) entries[kept++] = entries[j];

  double candidateSum = 0;
  for (int64_t j = 0; j < kept; ++j) candidateSum += entries[j].value;
  const auto forKeptTail = [&](const auto& visit) {
    if (tail) candidates.forTail([&](int32_t id, double e) { return e < row.minP || visit(id, e); });
  };
  double tailSum = 0;
  forKeptTail([&](int32_t, double e) { return tailSum += e, true; });

  double left = candidateSum + tailSum;  // the mass of what is left
  int32_t lastTailId = std::numeric_limits<int32_t>::max();
  if (row.topP < 1) {
    const double goal = row.topP * left;
    double sum = 0;
    bool reached = false;
    for (int64_t j = 0; j < kept && !reached; ++j) {
      sum += entries[j].value;
      if ((reached = sum >= goal)) kept = j + 1, tail = false, left = sum;
    }
    double part = 0;
    forKeptTail([&](int32_t id, double e) {
      part += e;
      if (candidateSum + part < goal) return true;
      lastTailId = id, left = candidateSum + part;
      return false;
    });
  }

  const double target = uniform(row.seed, row.position) * left;
  double sum = 0;
  for (int64_t j = 0; j < kept; ++j) {
    sum += entries[j].value;
    if (sum > target) return entries[j].id;
  }
  int32_t token = entries[kept - 1].id;
  double part = 0;
  forKeptTail([&](int32_t id, double e) {
    token = id;
    part += e;
    return !(candidateSum + part > target) && id != lastTailId;
  });
  return token;
}

/// The `limit` most probable allowed ids by raw logit, ties by lower id; entries beyond are (−1, the floor).
inline void listLogprobs(const SampleRow& row, int limit, double logSum, int32_t* ids, float* logprobs) {
  SampleEntry best[kMaxLogprobs];
  int count = 0;
  if (limit > 0)
    row.forAllowed(false, [&](int32_t id) {
      const double l = std::isnan(row.logits[id]) ? kMinusInfinity : static_cast<double>(row.logits[id]);
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
