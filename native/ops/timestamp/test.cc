// timestamp: a clock that does not go back, written to its place and no other.
#include "ops/harness.h"

using namespace longcat;

LONGCAT_TEST(timestamp) {
  Tensor first = t.empty(DType::i64, {1}), second = t.empty(DType::i64, {1}), two = t.empty(DType::i64, {2}), words = t.i32({1});
  const auto at = [](const Tensor& tensor) { return *reinterpret_cast<const int64_t*>(tensor.data); };
  for (Isa isa : t.isas()) {
    t.run(isa, "timestamp", args({&first}));
    t.run(isa, "timestamp", args({&second}));
    t.expect(at(first) > 0 && at(second) >= at(first), "time goes on");
    t.expect(at(second) - at(first) < 60'000'000'000, "in nanoseconds");
  }
  const auto refuses = [&](const Tensor& out) {
    t.expectThrows("refused", "INTERNAL", "timestamp: out must be contiguous int64 [1]", [&] { t.run(t.isas()[0], "timestamp", args({&out})); });
  };
  refuses(two);
  refuses(words);
}
