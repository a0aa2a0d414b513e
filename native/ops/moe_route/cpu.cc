// moe_route on the CPU: logits of all rows, softmax and choice row by row, then one walk over the choices for the plan.
#include "ops/moe_route/params.h"

#include <math.h>

#include "cpu/gemm.h"
#include "cpu/math.h"

namespace longcat::LONGCAT_ISA {
namespace {

/// Logits to probabilities, in place.
void softmax(float* row, int64_t n) {
  float most = -INFINITY;
  for (int64_t i = 0; i < n; ++i) most = row[i] > most ? row[i] : most;
  Vec total = zero();
  forLanes(n, [&](int64_t i, int lanes) {
    const Vec e = exp(sub(loadN(row + i, lanes), set1(most)));
    storeN(row + i, e, lanes);
    total = add(total, loadN(row + i, lanes));  // read back, so that lanes beyond the last add 0
  });
  const Vec sumOfAll = set1(sum(total));
  forLanes(n, [&](int64_t i, int lanes) { storeN(row + i, div(loadN(row + i, lanes), sumOfAll), lanes); });
}

float biasOf(const WeightView& bias, int64_t i) {
  if (bias.dtype == DType::bf16) return widen(static_cast<const Bf16*>(bias.data)[i]);
  return static_cast<const float*>(bias.data)[i];
}

/// Ids of the K largest of probability + bias, best first; ties, and NaN as the least, by lower id. `best` has room for K.
void chooseLargest(const MoeRouteParams& p, const float* probabilities, int32_t* ids, float* best) {
  int64_t count = 0;
  for (int64_t i = 0; i < p.classifier.rows; ++i) {
    float score = probabilities[i] + biasOf(p.bias, i);
    if (!(score >= -INFINITY)) score = -INFINITY;
    if (count == p.topK && !(score > best[count - 1])) continue;
    int64_t place = count < p.topK ? count++ : count - 1;
    for (; place > 0 && score > best[place - 1]; --place) {
      best[place] = best[place - 1];
      ids[place] = ids[place - 1];
    }
    best[place] = score;
    ids[place] = static_cast<int32_t>(i);
  }
}

void sortAscending(int32_t* ids, int64_t n) {
  for (int64_t i = 1; i < n; ++i) {
    const int32_t id = ids[i];
    int64_t place = i;
    for (; place > 0 && ids[place - 1] > id; --place) ids[place] = ids[place - 1];
    ids[place] = id;
  }
}

void routeRow(const MoeRouteParams& p, int64_t r, float* best) {
  float* probabilities = p.scores + r * p.classifier.rows;
  int32_t* ids = p.ids + r * p.topK;
  softmax(probabilities, p.classifier.rows);
  chooseLargest(p, probabilities, ids, best);
  sortAscending(ids, p.topK);
  float identity = 0;
  int32_t ffn = 0;
  for (int64_t k = 0; k < p.topK; ++k) {
    const float weight = probabilities[ids[k]] * p.factor;
    p.weights[r * p.topK + k] = weight;
    if (ids[k] < p.experts) ++ffn;
    else identity += weight;
  }
  p.identityWeight[r] = identity;
  p.ffnCount[r] = ffn;
}

/// Rows sorted by expert: count, add up, place. `next` has room for each expert's next entry.
void planExperts(const MoeRouteParams& p, int64_t rows, int32_t* next) {
  const int64_t slots = rows * p.topK;
  for (int64_t e = 0; e < p.experts; ++e) next[e] = 0;
  for (int64_t i = 0; i < slots; ++i)
    if (p.ids[i] < p.experts) ++next[p.ids[i]];
  int32_t start = 0;
  for (int64_t e = 0; e < p.experts; ++e) {
    const int32_t count = next[e];
    p.expertStart[e] = next[e] = start;
    start += count;
  }
  p.expertStart[p.experts] = start;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = r * p.topK; i < (r + 1) * p.topK; ++i) {
      const bool ffn = p.ids[i] < p.experts;
      const int32_t entry = ffn ? next[p.ids[i]]++ : -1;
      p.slotPlan[i] = entry;
      if (ffn) p.planRow[entry] = static_cast<int32_t>(r);
    }
  }
}

}  // namespace

void moe_route(const void* params, const CpuContext& context) {
  const auto& p = *static_cast<const MoeRouteParams*>(params);
  const int64_t rows = liveRows(p.rows, p.capacity), hidden = p.classifier.columns;
  gemmParallel(context, p.h, hidden, nullptr, rows, p.classifier, p.scores, p.classifier.rows);
  forRows(context, rows, 8 * p.classifier.rows, [&](int64_t first, int64_t end, int thread) {
    for (int64_t r = first; r < end; ++r) routeRow(p, r, context.scratch<float>(thread));
  });
  if (p.expertStart) planExperts(p, rows, context.scratch<int32_t>(0));
}

}  // namespace longcat::LONGCAT_ISA
