// moe_experts: the chosen experts' SwiGLU, weighted and summed with the identity term.
//   out = Σ_{e chosen, ascending} weight_e · Down_e(silu(Gate_e h) · Up_e h) + identityWeight · h        (fp32 throughout)
// Experts without rows cost nothing; zero experts are not in the plan. Without weights, identity_weight, slot_plan, rows and out, which come
// together, there is no sum: the products stay in `partial`, by plan entry, for ep_combine. h is then whatever rows the plan names.
#pragma once
#include "ops/weight.h"
namespace longcat {

// tensors: h, gate, gate_scale?, up, up_scale?, down, down_scale?, weights?, identity_weight?, expert_start, plan_row, slot_plan?,
//          hidden, partial, out?, rows?
// scalars: expected
struct MoeExpertsParams {
  ConstActivations h;             // [T, width] contiguous
  WeightStack gate, up;           // [experts, ffn, width]
  WeightStack down;               // [experts, width, ffn]
  const float* weights;           // [T, K]
  const float* identityWeight;    // [T]
  const int32_t* expertStart;     // [experts+1]
  const int32_t* planRow;         // [entries] row of h; T·K of them where there is a sum
  const int32_t* slotPlan;        // [T, K]
  Activations hidden;             // [entries, ffn] scratch, by plan entry
  Activations partial;            // [entries, width] each entry's product, not weighted
  Activations out;                // [T, width] contiguous; null: no sum
  const int32_t* rows;            // [1]
  int64_t capacity, topK;         // T; K, 0 without a sum
  int64_t entries;
  int64_t expected;               // entries that the plan will have, about, where room is for many more; 0: as many as there is room for. Changes no bits
  DType activation;
};

}  // namespace longcat
