// moe_route_backward: through the chosen experts' weights and the softmax; the choice itself has no gradient, and neither has the bias.
//   dp[i] = factor · dweight of the slot that chose i (0 if none) + dscore[i];  dlogit = p ⊙ (dp − Σ p · dp)
//   dh += dlogit C;  dC += dlogitᵀ h
#pragma once
#include "ops/trainable.h"
namespace longcat {

// tensors: h, classifier, d_classifier, scores, ids, d_weights, d_score?, d_h, d_logits, rows      scalars: factor
struct MoeRouteBackwardParams {
  const float* h;          // [T, hidden]
  Trainable classifier;    // [N, hidden]
  const float* scores;     // [T, N]: p, as the forward left it
  const int32_t* ids;      // [T, K]
  const float* dWeights;   // [T, K] of the chosen, zero experts too (moe_experts_backward)
  const float* dScore;     // [N] or null: of every row's p, beside (balance_loss)
  float* dH;               // [T, hidden], added to: what the experts left there
  float* dLogits;          // [T, N] scratch
  const int32_t* rows;     // [1]
  int64_t capacity, topK;
  float factor;
};

}  // namespace longcat
