// ep_combine on the CPU: each received row's sum, written into its home rank's window; then each own row's sum over ranks.
#include "ops/ep_combine/params.h"

#include "comm/flags.h"
#include "cpu/math.h"

namespace longcat::LONGCAT_ISA {
namespace {

/// What this rank's experts make of the j-th row from rank s.
void sumExperts(const EpCombineParams& p, int64_t s, int64_t j, float* out) {
  const int32_t* plan = p.slotPlan + (s * p.capacity + j) * p.slots;
  const float* weights = reinterpret_cast<const float*>(p.window + p.layout.weights) + (s * p.windowTokens + j) * p.slots;
  forLanes(p.width, [&](int64_t k, int n) {
    Vec total = mul(set1(weights[0]), loadN(p.partial + plan[0] * p.width + k, n));
    for (int64_t slot = 1; slot < p.slots && plan[slot] >= 0; ++slot) {
      total = fma(set1(weights[slot]), loadN(p.partial + plan[slot] * p.width + k, n), total);
    }
    storeN(out + k, total, n);
  });
}

void sendSums(const EpCombineParams& p, const CpuContext& context, int64_t s) {
  auto* window = reinterpret_cast<std::byte*>(p.windows[s]);
  float* sums = reinterpret_cast<float*>(window + p.layout.sums) + p.rank * p.windowTokens * p.width;
  const int32_t count = reinterpret_cast<const WindowFlag*>(p.window + rowsFlagOffset(s))->count;
  forRows(context, count, (p.slots + 1) * p.width, [&](int64_t first, int64_t end, int) {
    for (int64_t j = first; j < end; ++j) sumExperts(p, s, j, sums + j * p.width);
  });
  raiseFlag(window, sumsFlagOffset(p.rank), *p.epoch + 1, 0);
}

void sumRanks(const EpCombineParams& p, int64_t t) {
  const float* sums = reinterpret_cast<const float*>(p.window + p.layout.sums);
  const int32_t* slot = p.sendSlot + t * p.ranks;
  const float identity = p.identityWeight[t];
  forLanes(p.width, [&](int64_t k, int n) {
    Vec total = zero();
    bool any = false;
    for (int64_t e = 0; e < p.ranks; ++e) {
      if (slot[e] < 0) continue;
      const Vec part = loadN(sums + (e * p.windowTokens + slot[e]) * p.width + k, n);
      total = any ? add(total, part) : part;
      any = true;
    }
    if (identity != 0.0f) {
      const Vec h = loadN(p.h + t * p.width + k, n);
      total = any ? fma(set1(identity), h, total) : mul(set1(identity), h);
    }
    storeN(p.out + t * p.width + k, total, n);
  });
}

}  // namespace

void ep_combine(const void* params, const CpuContext& context) {
  const auto& p = *static_cast<const EpCombineParams*>(params);
  for (int64_t s = 0; s < p.ranks; ++s) sendSums(p, context, s);
  for (int64_t e = 0; e < p.ranks; ++e) awaitFlag(p.window, sumsFlagOffset(e), *p.epoch + 1, e, p.control);
  forRows(context, liveRows(p.rows, p.capacity), (p.ranks + 1) * p.width, [&](int64_t first, int64_t end, int) {
    for (int64_t t = first; t < end; ++t) sumRanks(p, t);
  });
  ++*p.epoch;
}

}  // namespace longcat::LONGCAT_ISA
