// linear at a model's projections: the attention's output, the head. Floor: weights and rows once, two operations a weight and row.
#include "ops/harness_bench.h"

using namespace longcat;

LONGCAT_BENCH(linear) {
  struct Size { const char* what; int64_t outputs, inputs, most; };
  for (const ModelShape* m : b.models()) {
    // The head runs over the rows that need logits: a batch's, not a prompt's.
    for (const Size& s : {Size{"o", m->hidden, m->heads * m->vDim, 8192}, Size{"q_b", m->heads * m->head(), m->qRank, 8192}, Size{"head", m->vocabulary, m->hidden, 256}}) {
      for (DType dtype : b.weightDtypes(*m)) {
        if (static_cast<double>(s.outputs * s.inputs) * static_cast<double>(bytesOf(dtype)) > b.weightBudget()) continue;
        const bool head = s.outputs == m->vocabulary;
        if (head && dtype == DType::f8e4m3) continue;  // heads are not quantised
        const bench::Weight w = b.weight(dtype, s.outputs, s.inputs);
        for (int64_t T : b.tokens(s.most)) {
          const double flops = 2.0 * static_cast<double>(T) * static_cast<double>(s.outputs * s.inputs);
          if (b.tooMuch(flops)) continue;
          const DType outDtype = head ? DType::f32 : b.activation();
          const Tensor x = b.randomActivations({T, s.inputs}), out = b.empty(outDtype, {T, s.outputs}), rows = b.i32({1}, {static_cast<int32_t>(T)});
          const Tensor scratch = b.activations({T, s.inputs});
          const double bytes = w.bytes() + static_cast<double>(T * s.inputs) * static_cast<double>(bytesOf(b.activation())) +
                               static_cast<double>(T * s.outputs) * static_cast<double>(bytesOf(outDtype));
          b.time({m, std::string(s.what) + " [" + std::to_string(s.outputs) + ", " + std::to_string(s.inputs) + "]", T, shortName(dtype), bytes, flops},
                 "linear", args({&x, nullptr, &w.data, w.scales(), nullptr, &out, &rows, head ? nullptr : &scratch}));
        }
      }
    }
  }
}
