// embed: rows of the table, exactly.
#include "ops/harness.h"

using namespace longcat;

LONGCAT_TEST(embed) {
  const int64_t vocabulary = 37;
  for (int64_t hidden : {1, 7, 24, 256}) {
    for (bool narrow : {false, true}) {
      const std::vector<float> values = t.randomFloats(vocabulary * hidden);
      const Tensor table = narrow ? t.bf16({vocabulary, hidden}, values) : t.f32({vocabulary, hidden}, values);
      const std::vector<float> stored = t.floats(table);
      const Tensor tokens = t.i32({4}, {36, 0, 5, 99999}), rows = t.i32({1}, {3});  // the fourth row is not live
      for (Isa isa : t.isas()) {
        const Tensor wide = t.f32({4, hidden + 3}), out = t.columns(wide, 2, hidden);
        t.run(isa, "embed", args({&tokens, &table, &out, &rows}));
        const std::vector<float> got = t.floats(out);
        std::vector<float> want;
        for (int64_t token : {36, 0, 5}) want.insert(want.end(), stored.begin() + token * hidden, stored.begin() + (token + 1) * hidden);
        t.expectSameBits("embedded rows", {got.begin(), got.begin() + 3 * hidden}, want);
        uint32_t beyond;
        __builtin_memcpy(&beyond, &got[static_cast<size_t>(3 * hidden)], 4);
        t.expect(beyond == 0xffffffffu, "a row beyond the live ones stays as it was");
        const Tensor dense = t.f32({4, hidden});
        t.run(isa, "embed", args({&tokens, &table, &dense, &rows}));
        t.expectSameBits("rows side by side", t.floats(dense), got);
        t.expect(t.floats(wide)[0] == 0 && t.floats(wide)[static_cast<size_t>(hidden + 2)] == 0, "columns beside the view stay as they were");
      }
    }
  }
}

LONGCAT_TEST(embed) {
  const Tensor tokens = t.i32({2}), table = t.f32({5, 8}), out = t.f32({2, 7}), rows = t.i32({1}, {2});
  t.expectThrows("a wrong width", "INTERNAL", "embed: out", [&] { t.run(Isa::plain, "embed", args({&tokens, &table, &out, &rows})); });
}
