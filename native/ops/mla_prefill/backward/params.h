// mla_prefill_backward: of causal attention over whole sequences, in the expanded form.
//   P = softmax(scale · Q Kᵀ, causal), out = P V; K = [W_k c | rope key], V = W_v c of each latent row c
//   dV = Pᵀ dout;  dP = dout Vᵀ;  dS = scale · P ⊙ (dP − Σ_v dout ⊙ out);  dQ = dS K;  dK = dSᵀ Q
//   dW_kvb += d[K V]ᵀ c;  dc = d[K V] W_kvb;  drope key = Σ_heads of dK's rope part, ascending
// P is computed again from the scores and the maximum and sum that the forward left in `state`: nothing of T² numbers is kept.
// Rows are whole sequences, one after another, and latent row t is token t's (for the forward: a cache of blocks of one position).
#pragma once
#include "ops/trainable.h"
namespace longcat {

// tensors: q, latents, kv_b, d_kv_b, seq_start, counts, out, state, d_out, d_q, d_latents, d_expanded, d_rope_keys
// scalars: heads, nope, rope, v_dim, softmax_scale
struct MlaPrefillBackwardParams {
  const float* q;            // [T, heads, nope+rope]
  const float* latents;      // [T, kv_rank+rope]
  Trainable kvB;             // [heads·(nope+v), kv_rank]
  const int32_t* seqStart;   // [S+1] first row of each sequence
  const int32_t* counts;     // step counts, ops/step_plan/params.h
  const float* out;          // [T, heads·v] as the forward left it
  const float* state;        // [T, heads, 2] as the forward left it: maximum and sum
  const float* dOut;         // [T, heads·v]
  float* dQ;                 // [T, heads, nope+rope]
  float* dLatents;           // [T, kv_rank+rope]
  float* dExpanded;          // [T, heads·(nope+v)] scratch: of each head's nope keys and values
  float* dRopeKeys;          // [T, heads·rope] scratch: of the rope key, by head
  int64_t capacity, maxSequences;
  int64_t heads, nope, rope, vDim, kvRank;
  float softmaxScale;
};

constexpr int64_t kBackwardTile = 64;  // keys, and query rows, of one tile

/// One thread's scratch, in floats from its start.
struct MlaPrefillBackwardScratch {
  int64_t keys;      // [kBackwardTile, nope+rope]
  int64_t values;    // [kBackwardTile, v]
  int64_t weights;   // [kBackwardTile, kBackwardTile] scores, then P
  int64_t dScores;   // [kBackwardTile, kBackwardTile] dP, then dS
  int64_t size;
};

inline MlaPrefillBackwardScratch mlaPrefillBackwardScratch(const MlaPrefillBackwardParams& p) {
  MlaPrefillBackwardScratch s{};
  s.values = s.keys + kBackwardTile * (p.nope + p.rope);
  s.weights = s.values + kBackwardTile * p.vDim;
  s.dScores = s.weights + kBackwardTile * kBackwardTile;
  s.size = s.dScores + kBackwardTile * kBackwardTile;
  return s;
}

}  // namespace longcat
