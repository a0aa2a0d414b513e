// mla_project_backward: from the gradients of the query and of the latent row to those of the normed hidden state and the projections.
//   q = qScale · RoPE(W_qb c), c = RMS(a), a = W_qa x + b_qa;   latent row = [kvScale · RMS(l) | RoPE(k)], [l | k] = W_kva x + b_kva
//   RoPE is a rotation: its backward turns back, from halves to interleaved pairs.
// Both latents are computed again from x; the products with W_qb are not needed again.
#pragma once
#include "ops/trainable.h"
namespace longcat {

// tensors: x, q_a, d_q_a, q_a_bias?, d_q_a_bias?, q_a_norm, d_q_a_norm, q_b, d_q_b, kv_a, d_kv_a, kv_a_bias?, d_kv_a_bias?, kv_a_norm, d_kv_a_norm,
//          cos_sin, d_q, d_latents, d_x, q_latent, q_normed, d_q_latent, kv_latent, scales, rows
// scalars: heads, nope, rope, eps, q_scale, kv_scale
struct MlaProjectBackwardParams {
  const float* x;             // [T, hidden]
  Trainable qA, qABias;       // [q_rank, hidden]; [1, q_rank] or null
  Trainable qANorm;           // [1, q_rank]
  Trainable qB;               // [heads·(nope+rope), q_rank]
  Trainable kvA, kvABias;     // [kv_rank+rope, hidden]; [1, kv_rank+rope] or null
  Trainable kvANorm;          // [1, kv_rank]
  const float* cosSin;        // [T, rope]: cos of pair 0..rope/2-1, then sin
  float* dQ;                  // [T, heads, nope+rope], turned back and scaled in place
  float* dLatents;            // [T, kv_rank+rope], made the gradient of W_kva's products in place
  float* dX;                  // [T, hidden]
  float* qLatent;             // [T, q_rank] scratch: a
  float* qNormed;             // [T, q_rank] scratch: c
  float* dQLatent;            // [T, q_rank] scratch: dc, then da
  float* kvLatent;            // [T, kv_rank+rope] scratch: [l | k]
  float* scales;              // [2, T] scratch: 1 / rms of each a, of each l
  const int32_t* rows;        // [1]
  int64_t capacity;
  int64_t heads, nope, rope;
  float eps, qScale, kvScale;
};

}  // namespace longcat
