// The draw of one row of `sample`: steps 3 to 5 of params.h in plain float64. Included by op.cc alone.
#pragma once

#include <cstddef>

#include "ops/sample/philox.h"
#include "ops/sample/row.h"

namespace longcat {

/// What a draw computes once and looks at several times, each of the vocabulary's size.
struct DrawScratch {
  SampleEntry* entries;  // the candidates
  double* logits;        // adjusted
  double* tail;          // exponentials of the tail's ids, −1 elsewhere

  static size_t bytes(int64_t vocabulary) { return static_cast<size_t>(vocabulary) * (sizeof(SampleEntry) + 2 * sizeof(double)); }
  DrawScratch(std::byte* memory, int64_t vocabulary)
      : entries(reinterpret_cast<SampleEntry*>(memory)), logits(reinterpret_cast<double*>(entries + vocabulary)), tail(logits + vocabulary) {}
};

/// The ids in drawing order: the `count` best in order of rank, as exponentials; all other drawable ids (the tail) ascending.
class Candidates {
 public:
  /// Step 3 says how many candidates there are.
  Candidates(const SampleRow& row, const DrawScratch& scratch) : row_(row), entries_(scratch.entries), logits_(scratch.logits), tail_(scratch.tail) {
    row.adjust(logits_);
    rank(row.topK ? row.topK : kFirstCandidates);
    if (row.topK || row.topP >= 1 || !tailCount()) return;
    const double goal = row.topP * (sum() + tailSum(0));
    for (int64_t limit = kFirstCandidates; sum() < goal && tailCount();) rank(limit *= kMoreCandidates);
  }

  int64_t count() const { return count_; }
  int64_t tailCount() const { return drawableCount_ - count_; }
  SampleEntry* entries() const { return entries_; }

  /// Of the tail's exponentials from `least` (≥ 0) on.
  double tailSum(double least) {
    double sum = 0;
    forTail(least, [&](int32_t, double e) { return sum += e, true; });
    return sum;
  }

  /// Calls visit(id, e) for the tail's ids with e ≥ least (≥ 0), ascending, until it returns false.
  template <class F>
  void forTail(double least, const F& visit) {
    if (!tailCount()) return;
    if (!tailIsThere_) fillTail();
    for (int64_t id = 0; id < row_.vocabulary; ++id)
      if (tail_[id] >= least && !visit(static_cast<int32_t>(id), tail_[id])) return;
  }

 private:
  static constexpr double kNotInTail = -1;

  /// e = exp((l − l_first) / temperature). With temperature 0, or nothing above −∞, all the mass is the first's.
  double exponential(double l) const {
    if (!(row_.temperature > 0) || first_ == kMinusInfinity) return 0.0;
    return l == first_ ? 1.0 : std::exp((l - first_) / row_.temperature);
  }

  /// The `limit` best, as exponentials; they leave the tail.
  void rank(int64_t limit) {
    select(std::min(limit, row_.vocabulary));
    if (!count_) return;
    first_ = entries_[0].value;
    for (int64_t j = 0; j < count_; ++j) entries_[j].value = j ? exponential(entries_[j].value) : 1.0;
    if (tailIsThere_) takeFromTail();
  }

  void fillTail() {
    std::fill(tail_, tail_ + row_.vocabulary, kNotInTail);
    row_.forIds([&](int64_t w) { return row_.drawable(w); }, [&](int32_t id) { return tail_[id] = exponential(logits_[id]), true; });
    takeFromTail();
    tailIsThere_ = true;
  }
  void takeFromTail() {
    for (int64_t j = 0; j < count_; ++j) tail_[entries_[j].id] = kNotInTail;
  }

  double sum() const {
    double sum = 0;
    for (int64_t j = 0; j < count_; ++j) sum += entries_[j].value;
    return sum;
  }

  /// The best of all drawable ids, sorted. Ids are gathered until there are twice as many as wanted; then the worse half goes, and of later
  /// ids only those that are better than what stayed are looked at.
  void select(int64_t limit) {
    const int64_t most = std::min(2 * limit, row_.vocabulary);
    double bound = kMinusInfinity;
    bool isBounded = false;
    const auto keep = [&](int64_t count) {
      std::nth_element(entries_, entries_ + count - 1, entries_ + count_, ranksBefore);
      count_ = count;
    };
    count_ = drawableCount_ = 0;
    for (int64_t w = 0; w < row_.words; ++w) {
      const uint32_t ids = row_.drawable(w);
      drawableCount_ += std::popcount(ids);
      if (isBounded && row_.isWhole(w) && !anyBeyond(logits_ + 32 * w, bound)) continue;  // nearly always
      SampleRow::forBits(w, ids, [&](int32_t id) {
        if (isBounded && !(logits_[id] > bound)) return true;  // a tie goes to the lower id
        if (count_ == most) {
          keep(limit);
          bound = entries_[limit - 1].value;
          isBounded = true;
          if (!(logits_[id] > bound)) return true;
        }
        entries_[count_++] = {logits_[id], id};
        return true;
      });
    }
    if (count_ > limit) keep(limit);
    std::sort(entries_, entries_ + count_, ranksBefore);
  }

  const SampleRow& row_;
  SampleEntry* entries_;
  double* logits_;
  double* tail_;
  bool tailIsThere_ = false;
  int64_t count_ = 0, drawableCount_ = 0;
  double first_ = 0;
};

/// Steps 4 and 5; the candidates' entries are compacted here.
inline int32_t drawToken(const SampleRow& row, Candidates& candidates) {
  if (!candidates.count()) return -1;
  SampleEntry* entries = candidates.entries();
  bool tail = row.topK == 0 && candidates.tailCount() > 0;
  const int64_t limit = row.topK ? std::min(row.topK, candidates.count()) : candidates.count();
  if (entries[candidates.count() - 1].value < row.minP) tail = false;  // ranked last of the candidates: the tail is below it
  int64_t kept = 1;
  for (int64_t j = 1; j < limit; ++j)
    if (!(entries[j].value < row.minP)) entries[kept++] = entries[j];

  double candidateSum = 0;
  for (int64_t j = 0; j < kept; ++j) candidateSum += entries[j].value;
  const double least = std::max(row.minP, 0.0);
  double left = candidateSum + (tail ? candidates.tailSum(least) : 0.0);  // the mass of what is left
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
    if (tail)
      candidates.forTail(least, [&](int32_t id, double e) {
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
  if (tail)
    candidates.forTail(least, [&](int32_t id, double e) {
      token = id;
      part += e;
      return !(candidateSum + part > target) && id != lastTailId;
    });
  return token;
}

}  // namespace longcat
