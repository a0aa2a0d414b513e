// ep_dispatch on the CPU: number the rows for each rank, write them into the ranks' windows, wait for theirs, plan those by expert.
#include "ops/ep_dispatch/params.h"

#include "comm/flags.h"
#include "comm/packed_rows.h"
#include "cpu/math.h"

namespace longcat::LONGCAT_ISA {
namespace {

/// Which of the rows sent to rank r each row is, ascending; `counts` gets how many there are for each rank.
void numberRows(const EpDispatchParams& p, int64_t rows, int32_t* counts) {
  for (int64_t r = 0; r < p.ranks; ++r) counts[r] = 0;
  for (int64_t t = 0; t < rows; ++t) {
    int32_t* slot = p.sendSlot + t * p.ranks;
    for (int64_t r = 0; r < p.ranks; ++r) slot[r] = -1;
    for (int64_t k = 0; k < p.topK; ++k) {
      const int64_t r = p.ids[t * p.topK + k] / p.localExperts;
      if (r < p.ranks && slot[r] < 0) slot[r] = counts[r]++;
    }
  }
}

void writeRow(const EpDispatchParams& p, const float* row, std::byte* window, int64_t place) {
  if (p.fp8) {
    packRow(row, p.width, reinterpret_cast<uint8_t*>(window + p.layout.rows) + place * p.width,
            reinterpret_cast<float*>(window + p.layout.scales) + place * fp8Blocks(p.width));
  } else {
    float* to = reinterpret_cast<float*>(window + p.layout.rows) + place * p.width;
    forLanes(p.width, [&](int64_t k, int n) { storeN(to + k, loadN(row + k, n), n); });
  }
}

/// Row t, with its experts there and their weights, to each rank that it is for.
void sendRow(const EpDispatchParams& p, int64_t t) {
  const int32_t* ids = p.ids + t * p.topK;
  const float* weights = p.weights + t * p.topK;
  for (int64_t k = 0; k < p.topK;) {
    const int64_t r = ids[k] / p.localExperts;
    if (r >= p.ranks) break;  // zero experts are last
    auto* window = reinterpret_cast<std::byte*>(p.windows[r]);
    const int64_t place = p.rank * p.windowTokens + p.sendSlot[t * p.ranks + r];
    int32_t* localIds = reinterpret_cast<int32_t*>(window + p.layout.ids) + place * p.slots;
    float* localWeights = reinterpret_cast<float*>(window + p.layout.weights) + place * p.slots;
    int64_t slot = 0;
    for (; k < p.topK && ids[k] / p.localExperts == r; ++k, ++slot) {
      localIds[slot] = static_cast<int32_t>(ids[k] - r * p.localExperts);
      localWeights[slot] = weights[k];
    }
    for (; slot < p.slots; ++slot) localIds[slot] = -1;
    writeRow(p, p.h + t * p.width, window, place);
  }
}

/// What the codes of the rows that came stand for.
void unpackRows(const EpDispatchParams& p, const CpuContext& context, const int32_t* counts) {
  for (int64_t s = 0; s < p.ranks; ++s) {
    forRows(context, counts[s], p.width, [&](int64_t first, int64_t end, int) {
      for (int64_t j = first; j < end; ++j) {
        const int64_t place = s * p.windowTokens + j;
        const auto* codes = reinterpret_cast<const F8*>(p.window + p.layout.rows) + place * p.width;
        const auto* scales = reinterpret_cast<const float*>(p.window + p.layout.scales) + place * fp8Blocks(p.width);
        float* to = p.received + (s * p.receivedStride + j) * p.width;
        for (int64_t block = 0; block * kFp8Block < p.width; ++block) {
          const int64_t begin = block * kFp8Block;
          forLanes(smaller(kFp8Block, p.width - begin),
                   [&](int64_t k, int n) { storeN(to + begin + k, mul(loadN(codes + begin + k, n), set1(scales[block])), n); });
        }
      }
    });
  }
}

/// f(source, place j among its rows, slot, local expert) for each expert of each row that came, in the order of the rows.
template <class F>
LONGCAT_INLINE void forEntries(const EpDispatchParams& p, const int32_t* counts, const F& f) {
  for (int64_t s = 0; s < p.ranks; ++s) {
    const int32_t* ids = reinterpret_cast<const int32_t*>(p.window + p.layout.ids) + s * p.windowTokens * p.slots;
    for (int64_t j = 0; j < counts[s]; ++j) {
      for (int64_t slot = 0; slot < p.slots; ++slot) f(s, j, slot, ids[j * p.slots + slot]);
    }
  }
}

/// Rows sorted by expert: count, add up, place. `next` has room for each local expert's next entry.
void planExperts(const EpDispatchParams& p, const int32_t* counts, int32_t* next) {
  for (int64_t e = 0; e < p.localExperts; ++e) next[e] = 0;
  forEntries(p, counts, [&](int64_t, int64_t, int64_t, int32_t expert) {
    if (expert >= 0) ++next[expert];
  });
  int32_t start = 0;
  for (int64_t e = 0; e < p.localExperts; ++e) {
    const int32_t count = next[e];
    p.expertStart[e] = next[e] = start;
    start += count;
  }
  p.expertStart[p.localExperts] = start;
  forEntries(p, counts, [&](int64_t s, int64_t j, int64_t slot, int32_t expert) {
    const int32_t entry = expert >= 0 ? next[expert]++ : -1;
    p.slotPlan[(s * p.capacity + j) * p.slots + slot] = entry;
    if (entry >= 0) p.planRow[entry] = static_cast<int32_t>(s * p.receivedStride + j);
  });
}

}  // namespace

void ep_dispatch(const void* params, const CpuContext& context) {
  const auto& p = *static_cast<const EpDispatchParams*>(params);
  const int64_t rows = liveRows(p.rows, p.capacity), exchange = *p.epoch + 1;
  int32_t* counts = context.scratch<int32_t>(0);
  numberRows(p, rows, counts);
  forRows(context, rows, smaller(p.ranks, p.topK) * p.width, [&](int64_t first, int64_t end, int) {
    for (int64_t t = first; t < end; ++t) sendRow(p, t);
  });
  for (int64_t r = 0; r < p.ranks; ++r) raiseFlag(reinterpret_cast<std::byte*>(p.windows[r]), rowsFlagOffset(p.rank), exchange, counts[r]);
  for (int64_t s = 0; s < p.ranks; ++s) counts[s] = awaitRows(p.window, exchange, s, p.capacity, p.control);
  if (p.fp8) unpackRows(p, context, counts);
  planExperts(p, counts, counts + p.ranks);
}

}  // namespace longcat::LONGCAT_ISA
