// embed at the family's widths. Floor: the rows' bytes, read once and written once.
#include "ops/harness_bench.h"

using namespace longcat;

LONGCAT_BENCH(embed) {
  for (const ModelShape* m : b.models()) {
    const int64_t vocabulary = b.onGpu() ? m->vocabulary : 2048;
    const DType dtype = b.weightDtypes(*m)[0];
    const Tensor table = b.random(dtype, {vocabulary, m->hidden});
    for (int64_t T : b.tokens()) {
      std::vector<int32_t> ids(static_cast<size_t>(T));
      for (int32_t& id : ids) id = static_cast<int32_t>(b.randomInteger(vocabulary));
      const Tensor tokens = b.i32({T}, ids), out = b.empty(DType::f32, {T, m->hidden}), rows = b.i32({1}, {static_cast<int32_t>(T)});
      const double bytes = static_cast<double>(T * m->hidden) * (4.0 + static_cast<double>(bytesOf(dtype)));
      b.time({m, std::to_string(m->hidden), T, "", bytes, 0}, "embed", args({&tokens, &table, &out, &rows}));
    }
  }
}
