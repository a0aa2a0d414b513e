// cross_entropy on the CPU: a row at a time: maximum, sum of exponentials, then the gradient.
#include "ops/cross_entropy/params.h"

#include <math.h>

#include "cpu/math.h"

namespace longcat::LONGCAT_ISA {
namespace {

float largest(const float* row, int64_t n) {
  Vec most = set1(-INFINITY);
  int64_t k = 0;
  for (; k + kLanes <= n; k += kLanes) most = max(load(row + k), most);
  float result = maxLane(most);
  for (; k < n; ++k) result = row[k] > result ? row[k] : result;
  return result;
}

/// Σ exp(row − maximum), lane by lane.
float sumOfExponentials(const float* row, int64_t n, float maximum) {
  Vec total = zero();
  int64_t k = 0;
  for (; k + kLanes <= n; k += kLanes) total = add(total, exp(sub(load(row + k), set1(maximum))));
  float last[kLanes] = {};
  storePartial(last, exp(sub(loadPartial(row + k, static_cast<int>(n - k)), set1(maximum))), static_cast<int>(n - k));
  return sum(add(total, load(last)));
}

void rowLoss(const CrossEntropyParams& p, int64_t r) {
  const int64_t target = p.targets[r];
  const float* logits = p.logits + r * p.vocabulary;
  float* d = p.dLogits ? p.dLogits + r * p.vocabulary : nullptr;
  if (target < 0 || target >= p.vocabulary) {
    p.loss[r] = 0;
    if (d) forLanes(p.vocabulary, [&](int64_t k, int n) { storeN(d + k, zero(), n); });
    return;
  }
  const float maximum = largest(logits, p.vocabulary), total = sumOfExponentials(logits, p.vocabulary, maximum);
  p.loss[r] = static_cast<float>(log(static_cast<double>(total)) + (static_cast<double>(maximum) - static_cast<double>(logits[target])));
  if (!d) return;
  const Vec scale = set1(*p.scale / total);
  forLanes(p.vocabulary, [&](int64_t k, int n) { storeN(d + k, mul(scale, exp(sub(loadN(logits + k, n), set1(maximum)))), n); });
  d[target] -= *p.scale;
}

}  // namespace

void cross_entropy(const void* params, const CpuContext& context) {
  const auto& p = *static_cast<const CrossEntropyParams*>(params);
  forRows(context, liveRows(p.rows, p.capacity), 8 * p.vocabulary, [&](int64_t first, int64_t end, int) {
    for (int64_t r = first; r < end; ++r) rowLoss(p, r);
  });
}

}  // namespace longcat::LONGCAT_ISA
