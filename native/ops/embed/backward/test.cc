// embed_backward: what is added to each row of the table, bit by bit.
#include "ops/gradcheck.h"

using namespace longcat;

LONGCAT_TEST(embed_backward) {
  const int64_t T = 60, vocabulary = 7;
  for (int64_t hidden : {1, 20, 150}) {
    std::vector<int32_t> ids;
    for (int64_t i = 0; i < T; ++i) ids.push_back(static_cast<int32_t>(t.randomInteger(vocabulary - 1)));
    const Tensor tokens = t.i32({T}, ids), dOut = t.randomF32({T, hidden}), rows = t.i32({1}, {T - 1});
    const std::vector<float> before = t.randomFloats(vocabulary * hidden), ds = t.floats(dOut);
    std::vector<float> want = before;
    for (int64_t i = 0; i < T - 1; ++i) {
      for (int64_t k = 0; k < hidden; ++k) want[static_cast<size_t>(ids[static_cast<size_t>(i)] * hidden + k)] += ds[static_cast<size_t>(i * hidden + k)];
    }
    for (Isa isa : t.isasOf("embed_backward")) {
      for (int threads : {1, 2, 3}) {
        const Tensor dTable = t.f32({vocabulary, hidden}, before);
        t.run(isa, "embed_backward", args({&tokens, &dTable, &dOut, &rows}), threads);
        t.expectSameBits("added in the order of the tokens", t.floats(dTable), want);
      }
    }
  }
}
