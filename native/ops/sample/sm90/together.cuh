// sample by clusters: a row's token by all blocks of a cluster, in one pass over the logits, one over their exponentials, and a little work of
// the first block. The blocks count ids in bins of adjusted logits, equally wide in the exponent. From these counts the first block reckons
// which few bins the answer must lie in: the rank that is asked for, the place where topP cuts, and the place that is drawn. The ids of these
// bins are collected and sorted, the masses of all that rank before them summed, exactly. If the reckoning was wrong, or the bins have too many
// ids (equal logits), nothing is lost: the first block does the row alone (row.cuh). Both give the same bits, sums of masses being exact.
#pragma once

#include "ops/sample/row.cuh"
#include "ops/sample/sm90/segment.cuh"

namespace longcat::cuda {

constexpr int kMostBlocks = 8;            // of a cluster
constexpr int kExponentBins = 4096;
constexpr float kBinsPerUnit = 128;       // of (first − logit) / temperature; what is further than 32 shares the last bin
constexpr int32_t kUndecided = -2;        // no token: the first block has to do the row alone
static_assert(kExponentBins == 4 * kThreads && kExponentBins <= 4 * kBins);

/// Which bin an adjusted logit falls into: the greater it is, the lower, whatever the rounding.
struct BinOf {
  float first, scale;
  __device__ BinOf(const Row& row, double firstValue)
      : first(static_cast<float>(firstValue)),
        scale(fminf(fmaxf(kBinsPerUnit / static_cast<float>(row.field[SampleField::temperature]), 1e-30f), 1e30f)) {}
  __device__ __forceinline__ int operator()(float logit) const { return static_cast<int>(fminf((first - logit) * scale, kExponentBins - 1)); }
};

/// Bins in which a draw falls and, behind them, those in which topP cuts, where they are not the same.
struct Windows {
  int drawFirst = 0, drawLast = -1;
  int cutFirst = kExponentBins, cutLast = -1;
  int drawable = 0;       // ids of the row, where a rank is asked for
  bool tooMany = false;   // ids in the windows
  __device__ bool hold(int bin) const { return (bin >= drawFirst && bin <= drawLast) || (bin >= cutFirst && bin <= cutLast); }
  __device__ bool areApart() const { return cutFirst < kExponentBins; }
};

/// What another block of the cluster has where this one has `own`.
template <class T>
__device__ __forceinline__ T* ofBlock(T* own, uint32_t rank) {
  T* there;
  asm volatile("mapa.u64 %0, %1, %2;\n" : "=l"(there) : "l"(own), "r"(rank));
  return there;
}

/// The sum over this and all earlier threads; *total gets the block's.
__device__ __noinline__ inline double blockInclusive(double v, double (&shared)[kWarps], double* total) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const auto warpInclusive = [lane](double sum) {
#pragma unroll 1
    for (int d = 1; d < 32; d <<= 1) {
      const double lower = __shfl_up_sync(kAllLanes, sum, d);
      if (lane >= d) sum += lower;
    }
    return sum;
  };
  v = warpInclusive(v);
  __syncthreads();  // of an earlier use
  if (lane == 31) shared[warp] = v;
  __syncthreads();
  const double warps = warpInclusive(shared[lane]);
  *total = __shfl_sync(kAllLanes, warps, 31);
  const double before = __shfl_sync(kAllLanes, warps, warp ? warp - 1 : 0);
  return warp ? before + v : v;
}

/// What a block knows of the row that its cluster shares. In shared memory: the blocks read and write parts of each other's.
class Together {
 public:
  SampleShared block;

  /// Begins with a row: its parameters and the block's logits. `cache`: depth · kThreads quads.
  __device__ __noinline__ void begin(const SampleParams& p, int64_t r, int32_t position, float4* cache, int depth) {
    arriveAtCluster();
    segment_.load(p, r, depth, [&] {
      if (threadIdx.x == 0) {
        block.row.set(p, r, position);
        segment_.row = &block.row, segment_.cache = cache, segment_.depth = depth;
      }
      __syncthreads();
    });
  }

  /// The row's token; −1 if none may be drawn, kUndecided if the first block has to look for itself. The first block has it; the others are
  /// no longer needed.
  __device__ __noinline__ int32_t token(const SampleParams& p) {
    const Row& row = block.row;
    const double* field = row.field;
    const bool isShared = !isForced(p, field) && !(field[hostDraw] != 0 && p.candidateIds) && row.topK <= kBuffer;
    const Key own = isShared ? bestOfBlock() : Key{0, 0};
    waitForCluster();  // all have begun: their shared memory may be written
    if (!isShared) {
      syncCluster();  // all have read the row: what follows its token changes the slot's list
      return kUndecided;
    }
    if (threadIdx.x < clusterSize()) ofBlock(bests_, threadIdx.x)[clusterRank()] = own;
    syncCluster();
    Key best = bests_[0];
    for (uint32_t i = 1; i < clusterSize(); ++i)
      if (ranksBefore(bests_[i], best)) best = bests_[i];
    if (best.high == 0 && best.low == 0) return -1;
    const double first = valueOf<false>(best.high);
    if (!(field[SampleField::temperature] > 0) || first == -static_cast<double>(INFINITY)) return best.id();
    return isfinite(static_cast<float>(first)) ? draw(first) : kUndecided;
  }

 private:
  using WarpMasses = Mass[kMostBlocks * kWarps];  // by warp of the cluster

  /// A draw, given the largest adjusted logit.
  __device__ __forceinline__ int32_t draw(double first) {
    const Row& row = block.row;
    const Exponential exponential(row, first);
    const BinOf binOf(row, exponential.first);
    const bool byRank = row.topK || row.field[SampleField::topP] < 1, isFirst = clusterRank() == 0;
    countBins(binOf);
    syncCluster();
    if (isFirst) {
      const Windows windows = row.topK || !byRank ? windowOfRank() : windowsOfMass();
      if (threadIdx.x < clusterSize()) *ofBlock(&windows_, threadIdx.x) = windows;
    }
    syncCluster();
    if (windows_.tooMany) return kUndecided;
    collect(exponential, binOf);
    syncCluster();
    const int held = isFirst ? gather() : 0;
    syncCluster();  // what the first block read of the others may go
    if (!isFirst || held > kBuffer) return kUndecided;
    sortBuffer(block, held);
    if (!byRank) return drawOrTail(exponential, held);
    if (!row.topK) return drawBetween(exponential, binOf, held);
    Search<false> search(row, block, windows_.drawable, held);
    return drawWithin(search, static_cast<int>(min(row.topK, static_cast<int64_t>(windows_.drawable))));
  }

  __device__ __noinline__ Key bestOfBlock() {
    uint32_t most = 0;
    int id = 0;
    segment_.forPlain([&](float logit, int i) {
      const uint32_t bits = orderedBits(logit);
      if (bits > most) most = bits, id = i;
    });
    const uint32_t warpMost = __reduce_max_sync(kAllLanes, most);
    id = __reduce_min_sync(kAllLanes, most == warpMost ? id : 0x7fffffff);
    Key best = warpMost ? keyOfValue(logitOf(warpMost), id) : Key{0, 0};
    if (block.row.numAdjustments) {
      segment_.forAdjusted([&](double logit, int i) {
        const Key key = keyOfValue(logit, i);
        if (ranksBefore(key, best)) best = key;
      });
      best = warpBest(best);
    }
    return blockBest(best, block);
  }

  /// How many ids of the block fall into each bin, to block.firstBins; and nothing is collected yet.
  __device__ __noinline__ void countBins(const BinOf binOf) {
    uint32_t* bins = block.firstBins;
    for (int i = threadIdx.x; i < kExponentBins; i += kThreads) bins[i] = 0;
    if (threadIdx.x == 0) block.collected = 0;
    __syncthreads();
    uint32_t far = 0;  // often most ids: not one by one
    const auto add = [&](float logit) {
      const int bin = binOf(logit);
      if (bin < kExponentBins - 1) atomicAdd(&bins[bin], 1u);
      else ++far;
    };
    segment_.forPlain([&](float logit, int) { add(logit); });
    segment_.forAdjusted([&](double logit, int) { add(static_cast<float>(logit)); });
    far = __reduce_add_sync(kAllLanes, far);
    if ((threadIdx.x & 31) == 0 && far) atomicAdd(&bins[kExponentBins - 1], far);
  }

  /// Puts the ids of the windows' bins into the block's buffer, and tells the first block the warps' masses.
  __device__ __noinline__ void collect(const Exponential exponential, const BinOf binOf) {
    const Windows windows = windows_;
    const bool byMass = block.row.topK == 0;
    Mass all = 0, beforeDraw = 0, beforeCut = 0;
    const auto add = [&](uint64_t mass, int bin) {
      all += mass;
      if (bin < windows.drawFirst) beforeDraw += mass;
      if (bin < windows.cutFirst) beforeCut += mass;
    };
    const auto take = [&](double logit, int bin, int id) {
      if (!windows.hold(bin)) return;
      const int place = atomicAdd(&block.collected, 1);
      const Key key = keyOfValue(logit, id);
      if (place < kBuffer) block.high[place] = key.high, block.low[place] = key.low;
    };
    segment_.forQuads([&](const float (&logits)[4], int id) {
      int bins[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) bins[j] = binOf(logits[j]);
      if (byMass) {
        uint64_t masses[4];
        exponential.keptMasses(logits, masses);
#pragma unroll
        for (int j = 0; j < 4; ++j) add(masses[j], bins[j]);
      }
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if (!isnan(logits[j])) take(logits[j], bins[j], id + j);
      }
    });
    segment_.forAdjusted([&](double logit, int id) {
      const int bin = binOf(static_cast<float>(logit));
      if (byMass) add(exponential.keptMass(logit), bin);
      take(logit, bin, id);
    });
    if (!byMass) return;
    all = warpMass(all), beforeDraw = warpMass(beforeDraw), beforeCut = warpMass(beforeCut);
    if ((threadIdx.x & 31) == 0) {
      const uint32_t warp = clusterRank() * kWarps + (threadIdx.x >> 5);
      ofBlock(all_, 0)[warp] = all, ofBlock(beforeDraw_, 0)[warp] = beforeDraw, ofBlock(beforeCut_, 0)[warp] = beforeCut;
    }
  }

  // What follows the first block does.

  /// All blocks' counts of bins 4·threadIdx.x to 4·threadIdx.x + 3.
  __device__ __forceinline__ void countsOfAll(uint32_t (&counts)[4]) {
#pragma unroll
    for (int j = 0; j < 4; ++j) counts[j] = 0;
    for (uint32_t i = 0; i < clusterSize(); ++i) {
      const uint4 more = reinterpret_cast<const uint4*>(ofBlock(block.firstBins, i))[threadIdx.x];
      counts[0] += more.x, counts[1] += more.y, counts[2] += more.z, counts[3] += more.w;
    }
  }

  /// The bins of the topK best ids; of the kFirstCandidates best where topK is off.
  __device__ __noinline__ Windows windowOfRank() {
    uint32_t counts[4];
    countsOfAll(counts);
    Mass total;
    Mass running = blockInclusive(static_cast<Mass>(counts[0] + counts[1] + counts[2] + counts[3]), block.sums, &total);
    const Mass wanted = block.row.topK ? block.row.topK : kFirstCandidates, goal = wanted < total ? wanted : total;
#pragma unroll
    for (int j = 3; j >= 0; --j) {
      if (running >= goal && running - counts[j] < goal) block.foundBin = 4 * static_cast<int>(threadIdx.x) + j, block.foundMass = running;
      running -= counts[j];
    }
    __syncthreads();
    Windows windows;
    windows.drawLast = block.foundBin;
    windows.drawable = static_cast<int>(total);
    windows.tooMany = block.foundMass > kBuffer;
    return windows;
  }

  /// Where topP cuts, and where the draw falls. An id's exponential is known from its bin to half a bin's width, and so are the sums of those
  /// ahead of a place and of those behind it, of which the ratio counts.
  __device__ __noinline__ Windows windowsOfMass() {
    const double p = block.row.field[SampleField::topP], minP = block.row.field[SampleField::minP];
    const double u = uniform(block.row.field[SampleField::seed], block.row.position);
    constexpr double kSlack = 1 + 1.1 / kBinsPerUnit;
    const int firstBin = 4 * static_cast<int>(threadIdx.x);
    uint32_t counts[4];
    countsOfAll(counts);
    double masses[4], own = 0, certain = 0, total, leastTotal;  // certain: what minP leaves, wherever in their bins the ids are
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float e = firstBin + j < kExponentBins - 1 ? __expf((static_cast<float>(firstBin + j) + 0.5f) * (-1 / kBinsPerUnit)) : 0.0f;
      masses[j] = e * kSlack < minP ? 0.0 : static_cast<double>(counts[j]) * static_cast<double>(e);
      own += masses[j];
      certain += e < minP * kSlack ? 0.0 : masses[j];
    }
    const double before = blockInclusive(own, running_, &total) - own;
    blockInclusive(certain, running_, &leastTotal);
    /// visit(bin, sum of the bins ahead, the same with this bin) for the thread's bins.
    const auto forBins = [&](const auto& visit) {
      double ahead = before;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        visit(firstBin + j, ahead, ahead + masses[j]);
        ahead += masses[j];
      }
      __syncthreads();
    };

    // The first bins of each window and its last: up to there, the sum may be and is the share that is asked for.
    Windows& w = windows_;
    if (threadIdx.x == 0) w.drawFirst = w.drawLast = w.cutFirst = w.cutLast = kExponentBins - 1;
    __syncthreads();
    forBins([&](int bin, double, double ahead) {
      if (ahead * (1 - p) * kSlack >= (leastTotal - ahead) * p) atomicMin(&w.cutFirst, bin);
      if (ahead * (1 - p) >= (total - ahead) * p * kSlack) atomicMin(&w.cutLast, bin);
    });
    forBins([&](int bin, double ahead, double withBin) {
      if (bin == w.cutFirst) leastLeft_ = ahead;
      if (bin == w.cutLast) mostLeft_ = withBin;
    });
    forBins([&](int bin, double, double ahead) {
      if (ahead * (1 - u) * kSlack >= (leastLeft_ - ahead) * u) atomicMin(&w.drawFirst, bin);
      if (ahead * (1 - u) >= (mostLeft_ - ahead) * u * kSlack) atomicMin(&w.drawLast, bin);
    });
    Windows windows;
    windows.drawFirst = w.drawFirst, windows.drawLast = w.drawLast;
    if (w.drawLast + 1 < w.cutFirst) windows.cutFirst = w.cutFirst, windows.cutLast = w.cutLast;
    else windows.drawLast = w.cutLast;  // one window
    uint32_t number = 0;
#pragma unroll
    for (int j = 0; j < 4; ++j) number += windows.hold(firstBin + j) ? counts[j] : 0;
    windows.tooMany = blockMass(number, block.sums) > kBuffer;
    return windows;
  }

  /// Puts what all blocks have collected into the block's buffer; how many ids there are. Nothing is put if they are more than kBuffer.
  __device__ __noinline__ int gather() {
    const uint32_t blocks = clusterSize();
    if (threadIdx.x < 32) {
      int end = threadIdx.x < blocks ? *ofBlock(&block.collected, threadIdx.x) : 0;
#pragma unroll
      for (int d = 1; d < kMostBlocks; d <<= 1) {
        const int lower = __shfl_up_sync(kAllLanes, end, d);
        if (static_cast<int>(threadIdx.x) >= d) end += lower;
      }
      if (threadIdx.x < blocks) ends_[threadIdx.x] = end;
    }
    __syncthreads();
    const int held = ends_[blocks - 1];
    if (held > kBuffer) return held;
    for (int i = ends_[0] + static_cast<int>(threadIdx.x); i < held; i += kThreads) {
      int of = 1;
      while (i >= ends_[of]) ++of;
      const int place = i - ends_[of - 1];
      block.high[i] = ofBlock(block.high, of)[place];
      block.low[i] = ofBlock(block.low, of)[place];
    }
    return held;
  }

  __device__ Mass sumOf(const WarpMasses& masses) {
    return blockMass(threadIdx.x < clusterSize() * kWarps ? masses[threadIdx.x] : 0, block.sums);
  }

  /// The draw of what topP leaves, from the sorted ids of the windows.
  __device__ __noinline__ int32_t drawBetween(const Exponential exponential, const BinOf binOf, int held) {
    const Mass all = sumOf(all_), beforeDraw = sumOf(beforeDraw_), beforeCut = sumOf(beforeCut_);
    const bool areApart = windows_.areApart();
    int numDraw = 0;  // of the window where the draw falls
    for (int first = 0; first < held; first += kThreads) {
      const int i = first + static_cast<int>(threadIdx.x);
      numDraw += __syncthreads_count(i < held && binOf(static_cast<float>(valueOf<false>(block.high[i]))) <= windows_.drawLast);
    }
    const auto find = [&](bool inCut, Mass goal) {
      const Mass before = inCut ? beforeCut : beforeDraw;
      if (before >= goal) return Found{};
      const auto mass = [&](int i) { return Mass{exponential.keptMass(valueOf<false>(block.high[i]))}; };
      return findInBuffer(block, inCut ? numDraw : 0, inCut ? held : numDraw, before, goal, mass);
    };
    const Found cut = find(areApart, topPGoal(block.row, all));
    if (!cut.there) return kUndecided;
    const Mass goal = drawGoal(block.row, cut.weight);
    Found drawn = find(false, goal);
    if (!drawn.there && areApart) drawn = find(true, goal);
    return drawn.there ? drawn.key.id() : kUndecided;
  }

  /// The draw among the sorted candidates and then, by id, all other ids.
  __device__ __noinline__ int32_t drawOrTail(const Exponential exponential, int held) {
    const Search<false> search(block.row, block, windows_.drawable, held);
    const int candidates = min(windows_.drawable, static_cast<int>(kFirstCandidates));
    Mass* masses = beforeDraw_;  // of the candidates: nobody needs what is there
    Mass own = 0;
    if (static_cast<int>(threadIdx.x) < candidates) {
      own = masses[threadIdx.x] = exponential.keptMass(search.value(threadIdx.x));
      ofCandidate_[threadIdx.x] = segment_.warpOf(search.at(threadIdx.x).id());
    }
    const Mass sum = blockMass(own, block.sums), left = sumOf(all_), goal = drawGoal(block.row, left);
    if (goal <= sum) return findInBuffer(block, 0, candidates, 0, goal, [&](int i) { return masses[i]; }).key.id();

    Mass tail = 0;  // of the warp of that number
    if (threadIdx.x < clusterSize() * kWarps) {
      tail = all_[threadIdx.x];
      for (int i = 0; i < candidates; ++i)
        if (ofCandidate_[i] == static_cast<int>(threadIdx.x)) tail -= masses[i];
    }
    Mass total;
    const Mass running = sum + blockInclusive(tail, block.sums, &total);
    if (running - tail < goal && running >= goal) block.foundBin = static_cast<int>(threadIdx.x), block.foundMass = running - tail;
    __syncthreads();
    const WarpQuads quads = segment_.quadsOf(block.foundBin);
    return drawFromQuads<false>(block.row, block, exponential, search.at(candidates - 1), quads.first, quads.end, block.foundMass, goal);
  }

  Segment segment_;
  Key bests_[kMostBlocks];
  Windows windows_;
  int ofCandidate_[kFirstCandidates];        // which warp has it
  WarpMasses all_, beforeDraw_, beforeCut_;  // of all ids; of those ahead of the windows; of those ahead of the second window
  int ends_[kMostBlocks];                    // of what the blocks have collected, one behind the other
  double running_[kWarps], leastLeft_, mostLeft_;
};

}  // namespace longcat::cuda
