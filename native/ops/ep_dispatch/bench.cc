// ep_dispatch of one rank among several, without its waits: rows copied into windows (or packed as FP8), and the plan of as many that come. A third
// of the choices are zero experts. Floor: each row read, and written once for each rank that it goes to.
#include "ops/exchange_bench.h"

using namespace longcat;

LONGCAT_BENCH(ep_dispatch) {
  if (b.onGpu()) return;  // there windows are memory of several cards
  for (const ModelShape* m : b.models()) {
    for (int64_t ranks : {2, 8}) {
      for (bool fp8 : {false, true}) {
        if (m->experts % ranks != 0) continue;
        for (int64_t T : b.tokens(256)) {
          bench::OneRank rank(b, *m, ranks, T, fp8);
          b.once("ep_dispatch", rank.dispatchArgs());
          const auto traffic = rank.fill();
          const double width = static_cast<double>(m->hidden);
          const double bytes = 4 * width * static_cast<double>(T) + (fp8 ? width + width / 32 : 4 * width) * traffic.sent + (fp8 ? (5 * width + width / 32) * traffic.came : 0);
          b.time({m, std::to_string(ranks) + " ranks" + (fp8 ? ", FP8" : ""), T, "", bytes, 0}, "ep_dispatch", rank.dispatchArgs());
        }
      }
    }
  }
}
