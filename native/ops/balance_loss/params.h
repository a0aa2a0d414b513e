// balance_loss: balances the load of the groups of experts that share a device (the report's Eq. 3 to 5).
//   FFN experts are cut in D groups of equal size, all zero experts are group D (counted from 0).
//   P_j = (1/T) Σ_{i in group j} Σ_t p_t,i
//   f_j = D / (K_e T) · slots that chose group j;  of the zero experts 1 / ((K − K_e) T) · slots
//   loss = alpha Σ_j f_j P_j;  dscore[i] = alpha f_group(i) / T, the same for every row (f has no gradient)
// Slots are counted, not tokens: f is then 1 everywhere at balance. T is the rows of this batch.
#pragma once
#include "ops/weight.h"
namespace longcat {

// tensors: scores, ids, loss, share, probability, d_score, rows
// scalars: experts, groups, mean_experts, alpha
struct BalanceLossParams {
  const float* scores;    // [T, N]: p of moe_route
  const int32_t* ids;     // [T, K]
  float* loss;            // [1]
  float* share;           // [D+1]: f; of the zero experts 0 where there are none
  float* probability;     // [D+1]: P
  float* dScore;          // [N], for moe_route_backward
  const int32_t* rows;    // [1]
  int64_t capacity, all, topK, experts, groups;
  double meanExperts;     // K_e
  double alpha;
};

}  // namespace longcat
