// embed at the family's widths. Floor: the rows' bytes, read once and written once.
#include "ops/harness.h"

using namespace longcat;

LONGCAT_BENCH(embed) {
  const int64_t vocabulary = 8192;
  for (int64_t hidden : {256, 3072, 6144}) {
    const Tensor table = b.empty(DType::bf16, {vocabulary, hidden});
    for (int32_t R : {1, 16, 256}) {
      std::vector<int32_t> ids(static_cast<size_t>(R));
      for (int32_t& id : ids) id = static_cast<int32_t>(b.randomInteger(vocabulary));
      const Tensor tokens = b.i32({R}, ids), out = b.f32({R, hidden}), rows = b.i32({1}, {R});
      b.time(std::to_string(R) + " x " + std::to_string(hidden), "embed", args({&tokens, &table, &out, &rows}), 6.0 * R * hidden, 0);
    }
  }
}
