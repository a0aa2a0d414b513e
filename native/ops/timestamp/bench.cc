// timestamp: what the mark itself takes, which whoever times by marks has in between. Floor: nothing worth naming.
#include "ops/harness_bench.h"

using namespace longcat;

LONGCAT_BENCH(timestamp) {
  const ModelShape* m = b.models().front();
  const Tensor out = b.empty(DType::i64, {1});
  b.time({m, "a mark", 1, "", 8, 0}, "timestamp", args({&out}));
}
