// moe_route: which experts each token uses, with which weights, and the rows sorted by expert (docs/model.md, 4).
//   p = softmax(h Cᵀ) over all N = experts + zero experts, fp32; the K largest of p + bias (ties: the lower id first);
//   weight = p · factor (unbiased, not renormalised)
// Zero experts (id ≥ experts) never enter the plan: their weights are summed into identityWeight, in ascending id. Without expert_start, plan_row and
// slot_plan, which come together, there is no plan: where other ranks have experts too, ep_dispatch makes one of the rows that come.
#pragma once
#include "ops/weight.h"
namespace longcat {

// tensors: h, classifier, bias, scores, ids, weights, identity_weight, ffn_count, expert_start?, plan_row?, slot_plan?, rows
// scalars: experts, factor
struct MoeRouteParams {
  ConstActivations h;          // [T, hidden] contiguous
  WeightView classifier;       // [N, hidden] f32 or bf16, products in fp32
  WeightView bias;             // [1, N] f32 or bf16
  float* scores;               // [T, N]: p, kept for those who want to look
  int32_t* ids;                // [T, K] chosen ids, ascending
  float* weights;              // [T, K] of those ids
  float* identityWeight;       // [T] sum of the zero experts' weights (0 if none)
  int32_t* ffnCount;           // [T] FFN experts chosen
  int32_t* expertStart;        // [experts+1] plan entries of expert e are [expertStart[e], expertStart[e+1]); null: no plan
  int32_t* planRow;            // [T·K] token row of each plan entry, ascending within an expert
  int32_t* slotPlan;           // [T, K] plan entry of each chosen slot, -1 for zero experts
  const int32_t* rows;         // [1]
  int64_t capacity, topK;
  int64_t experts;             // FFN experts; N - experts zero experts
  float factor;
  DType activation;            // of h
};

}  // namespace longcat
