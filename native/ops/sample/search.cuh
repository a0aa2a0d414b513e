// sample on a GPU: ids of a row by rank, without a list of all of them. The best ones are collected in shared memory and sorted; what
// lies beyond is found by descending through the keys' digits with a histogram of numbers or masses at each.
#pragma once

#include "ops/sample/mass.cuh"
#include "ops/token_logprobs/log_sum_exp.cuh"

namespace longcat::cuda {

constexpr int kBuffer = 4096;      // keys that are sorted at once
constexpr int kBins = 2048;
constexpr int kLevels = 9;         // digits of a key: five of 11 bits and one of 9 in `high`, then 11, 11, 10 in `low`

struct SampleShared {
  Row row, raw;                    // raw: once log-probabilities are asked for
  Mass sums[kWarps];
  Mass segments[kWarps];           // of the tail, by the warps' segments of ids
  uint64_t high[kBuffer];          // keys by rank, once sorted
  uint32_t low[kBuffer];
  uint32_t firstBins[4 * kBins];   // histogram of the first digit (Bins); those of later digits lie where the keys are else
  LogSumShared logSum;
  // What one thread found, for all.
  Mass foundMass;
  Key foundKey;
  int foundBin;
  int collected;
};

/// A histogram: the number of keys in each bin, and their mass in three words of 32 bits, lowest first.
struct Bins {
  uint32_t* words;
  __device__ Bins(SampleShared& s, int level) : words(level == 0 ? s.firstBins : reinterpret_cast<uint32_t*>(s.high)) {}
  __device__ uint32_t& count(int b) const { return words[b]; }
  __device__ uint32_t& mass(int word, int b) const { return words[(1 + word) * kBins + b]; }
  template <bool kByMass>
  __device__ Mass weight(int b) const {
    if constexpr (!kByMass) return count(b);
    return static_cast<Mass>(mass(2, b)) << 64 | static_cast<uint64_t>(mass(1, b)) << 32 | mass(0, b);
  }
};
static_assert(sizeof(uint64_t) * kBuffer >= sizeof(uint32_t) * 4 * kBins);

/// Keys that agree with `start` in their first `level` digits. Later digits of `start` are 0, so it ranks last of them, or behind.
struct Bin {
  int level = 0;
  Key start = {0, 0};
  __device__ bool holds(Key key) const {
    if (level == 0) return true;
    if (level <= 5) return (key.high ^ start.high) >> (64 - 11 * level) == 0;
    if (key.high != start.high) return false;
    return level == 6 || (level < kLevels ? (key.low ^ start.low) >> (level == 7 ? 21 : 10) == 0 : key.low == start.low);
  }
  /// The digit after those.
  __device__ int digit(Key key) const {
    if (level < 5) return static_cast<int>(key.high >> (53 - 11 * level)) & (kBins - 1);
    if (level == 5) return static_cast<int>(key.high) & 511;
    return static_cast<int>(level == 6 ? key.low >> 21 : level == 7 ? (key.low >> 10) & (kBins - 1) : key.low & 1023);
  }
  __device__ void narrow(int digit) {
    const uint64_t d = static_cast<uint64_t>(digit);
    if (level < 5) start.high |= d << (53 - 11 * level);
    else if (level == 5) start.high |= d;
    else start.low |= static_cast<uint32_t>(level == 6 ? d << 21 : level == 7 ? d << 10 : d);
    ++level;
  }
};

/// Sorts the first `count` keys of the buffer by rank. Of keys at most 32 apart a warp has the same 64 in every step.
__device__ __noinline__ inline void sortBuffer(SampleShared& s, int count) {
  int padded = 2;
  while (padded < count) padded *= 2;
  for (int i = count + static_cast<int>(threadIdx.x); i < padded; i += kThreads) s.high[i] = 0, s.low[i] = 0;
  __syncthreads();
  for (int size = 2; size <= padded; size *= 2) {
    for (int distance = size / 2; distance > 0; distance /= 2) {
      for (int i = threadIdx.x; i < padded / 2; i += kThreads) {
        const int a = 2 * i - (i & (distance - 1)), b = a + distance;
        const Key first = {s.high[a], s.low[a]}, second = {s.high[b], s.low[b]};
        if (ranksBefore(second, first) == ((a & size) == 0)) {
          s.high[a] = second.high, s.low[a] = second.low;
          s.high[b] = first.high, s.low[b] = first.low;
        }
      }
      const bool othersAreNext = distance == 1 && (size > 32 || size == padded);
      if (distance > 32 || othersAreNext) __syncthreads();
      else __syncwarp();
    }
  }
}

/// How many ids may be drawn; to every thread.
__device__ __noinline__ inline int countAllowed(const Row& row, SampleShared& s) {
  uint32_t count = 0;
  for (int word = threadIdx.x; word * 32ll < row.vocabulary; word += kThreads) {
    uint32_t bits = row.allowed[word];
    if (row.mask) bits &= row.mask[word];
    const int left = row.vocabulary - word * 32;
    if (left < 32) bits &= (1u << left) - 1;
    count += __popc(bits);
  }
  return static_cast<int>(blockMass(count, s.sums));
}

/// Which ids a search goes through: those that do not rank behind `last`.
struct Limit {
  Key last = {0, 0};
  __device__ bool holds(Key key) const { return !ranksBefore(last, key); }
};

/// Puts the keys in `bin` and within `limit` into the buffer, in no order; returns how many there are (more than kBuffer: not all
/// were put).
template <bool kPlain>
__device__ __noinline__ int collect(const Row& row, SampleShared& s, const Bin bin, const Limit limit) {
  __syncthreads();
  if (threadIdx.x == 0) s.collected = 0;
  __syncthreads();
  forAllowed<kPlain, false>(row, [&](Key key) {
    if (!limit.holds(key) || !bin.holds(key)) return;
    const int place = atomicAdd(&s.collected, 1);
    if (place < kBuffer) s.high[place] = key.high, s.low[place] = key.low;
  });
  __syncthreads();
  return s.collected;
}

/// The histogram of the keys in `bin` by their next digit: numbers and, with kByMass, masses.
template <bool kPlain, bool kByMass>
__device__ __noinline__ void histogram(const Row& row, const Bins bins, const Exponential& exponential, const Limit limit, const Bin bin) {
  __syncthreads();
  for (int i = threadIdx.x; i < 4 * kBins; i += kThreads) bins.words[i] = 0;
  __syncthreads();
  forAllowed<kPlain, true>(row, [&](Key key) {
    if (!bin.holds(key) || !limit.holds(key)) return;
    const int b = bin.digit(key);
    atomicAdd(&bins.count(b), 1u);
    if constexpr (kByMass) {
      const uint64_t mass = exponential.keptMass(valueOf<kPlain>(key.high));
      if (!mass) return;
      const uint32_t low = static_cast<uint32_t>(mass);
      const uint64_t middle = (mass >> 32) + (atomicAdd(&bins.mass(0, b), low) + low < low);  // with the carry
      const uint32_t middleLow = static_cast<uint32_t>(middle);
      const uint32_t carry = static_cast<uint32_t>(middle >> 32) + (atomicAdd(&bins.mass(1, b), middleLow) + middleLow < middleLow);
      if (carry) atomicAdd(&bins.mass(2, b), carry);
    }
  });
  __syncthreads();
}

/// The bin by rank in which the running weight reaches `goal`. It must be reached. *before: the running weight ahead of that bin.
template <bool kByMass>
__device__ __noinline__ int binOf(SampleShared& s, const Bins& bins, Mass goal, Mass* before) {
  const int better = kBins - 1 - 2 * static_cast<int>(threadIdx.x), worse = better - 1;
  const Mass first = bins.template weight<kByMass>(better), second = bins.template weight<kByMass>(worse);
  Mass total;
  const Mass end = *before + blockInclusive(first + second, s.sums, &total), start = end - first - second;
  if (start < goal && end >= goal) {  // one thread
    const bool inFirst = start + first >= goal;
    s.foundBin = inFirst ? better : worse;
    s.foundMass = inFirst ? start : start + first;
  }
  __syncthreads();
  const int bin = s.foundBin;
  *before = s.foundMass;
  __syncthreads();
  return bin;
}

/// What a search found: the key at which the running weight reaches the goal, and that weight.
struct Found {
  Key key = {0, 0};
  Mass weight = 0;
  bool there = false;
};

/// The first of the buffer's keys at places [first, end) at which before + running weight reaches `goal`. `weight`: of a place.
template <class F>
__device__ Found findInBuffer(SampleShared& s, int first, int end, Mass before, Mass goal, const F& weight) {
  for (; first < end; first += kThreads) {
    const int i = first + threadIdx.x;
    const Mass own = i < end ? weight(i) : 0;
    Mass total;
    const Mass running = before + blockInclusive(own, s.sums, &total);
    if (running - own < goal && running >= goal) {  // at most one thread
      s.foundKey = {s.high[i], s.low[i]};
      s.foundMass = running;
    }
    before += total;
    if (before >= goal) {  // alike in all threads
      __syncthreads();
      const Found found = {s.foundKey, s.foundMass, true};
      __syncthreads();
      return found;
    }
  }
  return {};
}

/// The best ids of a row.
template <bool kPlain>
struct Search {
  const Row& row;
  SampleShared& s;
  int allowed;                 // how many ids there are
  int held = 0;                // this many best ones lie sorted in the buffer
  bool firstHistogram = false; // that of the first digit by mass is there

  __device__ Search(const Row& r, SampleShared& shared) : row(r), s(shared), allowed(countAllowed(r, shared)) {}
  /// Where the buffer already holds so many of them.
  __device__ Search(const Row& r, SampleShared& shared, int numAllowed, int numHeld) : row(r), s(shared), allowed(numAllowed), held(numHeld) {}

  __device__ Key at(int place) const { return {s.high[place], s.low[place]}; }
  __device__ double value(int place) const { return valueOf<kPlain>(s.high[place]); }

  /// Makes the buffer hold the `count` best ids (≤ kBuffer) or all that there are.
  __device__ __noinline__ void hold(int count) {
    count = min(count, allowed);
    if (held >= count) return;
    if (row.vocabulary <= kBuffer || count <= kThreads / 2) {
      const uint64_t least = row.vocabulary <= kBuffer ? 0 : lowerBound(count);
      held = collect<kPlain>(row, s, Bin{}, Limit{{least, 0}});
      if (held <= kBuffer) return sortBuffer(s, held);
    }
    const Exponential none(row, 0);
    Mass before = 0;
    const Bin bin = descend<false>(none, Limit{}, count, true, &before);
    held = collect<kPlain>(row, s, Bin{}, Limit{bin.start});
    sortBuffer(s, held);
  }

  /// The key of rank `count` (≥ 1). The buffer is lost.
  __device__ Key ranked(int count) {
    const Exponential none(row, 0);
    return beyond<false>(none, Limit{}, count).key;
  }

  /// Where the running mass of the ids within `limit` reaches `goal`. It must be reached.
  __device__ __noinline__ Found reach(const Exponential& exponential, const Limit& limit, int within, Mass goal) {
    const int count = min(held, within);
    const Found found = findInBuffer(s, 0, count, 0, goal, [&](int i) { return exponential.keptMass(value(i)); });
    return found.there ? found : beyond<true>(exponential, limit, goal);
  }

 private:
  /// At least `count` ids (≤ kThreads) have keys from this on, and seldom many more: each thread's best one is considered.
  __device__ __noinline__ uint64_t lowerBound(int count) {
    uint64_t best = 0;
    forAllowed<kPlain, false>(row, [&](Key key) { best = key.high > best ? key.high : best; });
    __syncthreads();
    s.high[threadIdx.x] = best;
    s.low[threadIdx.x] = 0;
    sortBuffer(s, kThreads);
    const uint64_t bound = s.high[count - 1];
    __syncthreads();
    return bound;
  }

  /// The bin in which the running weight reaches `goal`, so narrow that it fits into the buffer (with all ahead of it where
  /// `withBetter`). *before: the running weight ahead of it.
  template <bool kByMass>
  __device__ Bin descend(const Exponential& exponential, const Limit& limit, Mass goal, bool withBetter, Mass* before) {
    Bin bin;
    *before = 0;
    for (;;) {
      const Bins bins(s, bin.level);
      if (!kByMass || bin.level > 0 || !firstHistogram) histogram<kPlain, kByMass>(row, bins, exponential, limit, bin);
      if (bin.level == 0) firstHistogram = kByMass;
      const int digit = binOf<kByMass>(s, bins, goal, before);
      const Mass keys = bins.count(digit) + (withBetter ? *before : 0);
      bin.narrow(digit);
      if (keys <= kBuffer || bin.level == kLevels) return bin;
    }
  }

  /// The key at which the running weight reaches `goal`, wherever it lies. The buffer is lost.
  template <bool kByMass>
  __device__ __noinline__ Found beyond(const Exponential& exponential, const Limit& limit, Mass goal) {
    held = 0;
    Mass before = 0;
    const Bin bin = descend<kByMass>(exponential, limit, goal, false, &before);
    const int count = collect<kPlain>(row, s, bin, limit);
    sortBuffer(s, count);
    return findInBuffer(s, 0, count, before, goal, [&](int i) -> Mass {
      if constexpr (kByMass) return exponential.keptMass(value(i));
      return 1;
    });
  }
};

}  // namespace longcat::cuda
