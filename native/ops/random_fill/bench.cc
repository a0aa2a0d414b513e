// random_fill with a matrix of each weight dtype: one dense FFN's. Floor: the bytes written.
#include "ops/harness_bench.h"

using namespace longcat;

LONGCAT_BENCH(random_fill) {
  for (const ModelShape* m : b.models()) {
    for (DType dtype : {DType::f32, DType::bf16, DType::f8e4m3}) {
      const Tensor out = b.empty(dtype, {m->ffn, m->hidden});
      const auto numbers = static_cast<double>(out.elements());
      b.time({m, std::string(shortName(dtype)) + " [" + std::to_string(m->ffn) + ", " + std::to_string(m->hidden) + "]", 1, "",
              numbers * static_cast<double>(bytesOf(dtype)), 0},
             "random_fill", args({&out}, {1, -1, 1}));
    }
  }
}
