// moe_experts_backward: of out = Σ_{e chosen, ascending} weight_e · FFN_e(h) + identityWeight · h.
//   An expert's FFN goes back as swiglu_mlp's, over the rows that chose it, with dout · weight_e;
//   dweight_e = dout · FFN_e(h), for a zero expert dout · h;  dh = Σ_e of what the experts give, ascending, + identityWeight · dout
// Rows by expert are the forward's plan. Gates and ups are computed again.
#pragma once
#include "ops/trainable.h"
namespace longcat {

// tensors: h, gate, d_gate, up, d_up, down, d_down, weights, identity_weight, expert_start, plan_row, slot_plan, d_out, d_h, d_weights,
//          gate_rows, up_rows, hidden_rows, partial, rows
struct MoeExpertsBackwardParams {
  const float* h;                // [T, width]
  TrainableStack gate, up;       // [experts, ffn, width]
  TrainableStack down;           // [experts, width, ffn]
  const float* weights;          // [T, K]
  const float* identityWeight;   // [T]
  const int32_t* expertStart;    // [experts+1]
  const int32_t* planRow;        // [T·K]
  const int32_t* slotPlan;       // [T, K]
  const float* dOut;             // [T, width]
  float* dH;                     // [T, width]
  float* dWeights;               // [T, K]
  float* gateRows;               // [T·K, ffn] scratch, by plan entry: g, then dg
  float* upRows;                 // [T·K, ffn] scratch: u, then du
  float* hiddenRows;             // [T·K, ffn] scratch: dhidden, then hidden · weight
  float* partial;                // [T·K, width] scratch: dh by plan entry
  const int32_t* rows;           // [1]
  int64_t capacity, topK;
};

}  // namespace longcat
