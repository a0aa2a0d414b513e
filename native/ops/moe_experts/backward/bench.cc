// moe_experts_backward at mini's experts, a third of each token's choices zero experts. Floor: the matrices of experts with rows read, their
// gradients read and written, rows once; eight products of two operations a weight and row, as swiglu_mlp_backward's.
#include "ops/bench_training.h"

using namespace longcat;
using namespace longcat::bench;

LONGCAT_BENCH(moe_experts_backward) {
  for (const ModelShape* m : trainedModels(b)) {
    const int64_t width = m->hidden, ffn = m->expertFfn, E = m->experts, K = m->topK, used = K - K / 3;
    const auto stack = [&](int64_t rows, int64_t columns) { return b.stack(DType::f32, E, E, rows, columns).data; };
    const Tensor gate = stack(ffn, width), up = stack(ffn, width), down = stack(width, ffn), dGate = stack(ffn, width), dUp = stack(ffn, width), dDown = stack(width, ffn);
    for (int64_t T : b.tokens(4096)) {
      const int64_t entries = T * used;
      const double flops = 16 * number(entries) * number(width * ffn);
      if (b.tooMuch(flops)) continue;
      std::vector<int32_t> start{0}, planRow, slotPlan(static_cast<size_t>(T * K), -1);
      for (int64_t e = 0; e < E; ++e) {
        for (int64_t i = 0; i < T * K; ++i) {
          if (i % K >= used || (i / K * 7 + i % K * 5) % E != e) continue;
          slotPlan[static_cast<size_t>(i)] = static_cast<int32_t>(planRow.size());
          planRow.push_back(static_cast<int32_t>(i / K));
        }
        start.push_back(static_cast<int32_t>(planRow.size()));
      }
      planRow.resize(static_cast<size_t>(T * K));
      const Tensor h = f32(b, {T, width}), weights = b.random(DType::f32, {T, K}, 0, 1), identity = b.random(DType::f32, {T}, 0, 1), dOut = f32(b, {T, width});
      const Tensor starts = b.i32({E + 1}, start), rowOf = b.i32({T * K}, planRow), slots = b.i32({T, K}, slotPlan), rows = live(b, T);
      const Tensor dH = room(b, {T, width}), dWeights = room(b, {T, K}), g = room(b, {T * K, ffn}), u = room(b, {T * K, ffn}), hidden = room(b, {T * K, ffn});
      const Tensor partial = room(b, {T * K, width});
      const double matrices = number(std::min(E, entries)) * number(width * ffn);
      b.time({m, std::to_string(width) + " to " + std::to_string(ffn) + ", " + std::to_string(E) + " experts", T, "f32",
              bytesOfFloats(9 * matrices + 3 * number(T * width)), flops},
             "moe_experts_backward",
             args({&h, &gate, &dGate, &up, &dUp, &down, &dDown, &weights, &identity, &starts, &rowOf, &slots, &dOut, &dH, &dWeights, &g, &u, &hidden, &partial, &rows}));
    }
  }
}
