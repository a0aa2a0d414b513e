// balance_loss on the CPU: a task a group, sums in float64 over its experts of each row, rows ascending.
#include "ops/balance_loss/params.h"

#include "cpu/math.h"

namespace longcat::LONGCAT_ISA {
namespace {

/// f, P and dscore of group j: experts [begin, end).
void groupShare(const BalanceLossParams& p, int64_t j, int64_t rows) {
  const bool zeroExperts = j == p.groups;
  const int64_t size = p.experts / p.groups, begin = j * size, end = zeroExperts ? p.all : begin + size;
  int64_t slots = 0;
  double probability = 0;
  for (int64_t i = 0; i < rows * p.topK; ++i) slots += p.ids[i] >= begin && p.ids[i] < end;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = begin; i < end; ++i) probability += static_cast<double>(p.scores[r * p.all + i]);
  }
  const double tokens = static_cast<double>(larger(rows, 1)), wanted = zeroExperts ? static_cast<double>(p.topK) - p.meanExperts : p.meanExperts;
  const double share = begin == end ? 0 : static_cast<double>(slots) * (zeroExperts ? 1.0 : static_cast<double>(p.groups)) / (wanted * tokens);
  p.share[j] = static_cast<float>(share);
  p.probability[j] = static_cast<float>(probability / tokens);
  for (int64_t i = begin; i < end; ++i) p.dScore[i] = static_cast<float>(p.alpha * share / tokens);
}

}  // namespace

void balance_loss(const void* params, const CpuContext& context) {
  const auto& p = *static_cast<const BalanceLossParams*>(params);
  const int64_t rows = liveRows(p.rows, p.capacity);
  forTasks(context, p.groups + 1, [&](int64_t j, int) { groupShare(p, j, rows); });
  double total = 0;
  for (int64_t j = 0; j <= p.groups; ++j) total += static_cast<double>(p.share[j]) * static_cast<double>(p.probability[j]);
  *p.loss = static_cast<float>(p.alpha * total);
}

}  // namespace longcat::LONGCAT_ISA
