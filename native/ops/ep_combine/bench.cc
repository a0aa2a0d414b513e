// ep_combine of one rank among several, without its waits: the sums of the rows that came, into windows, and the own rows' sums over ranks.
// Floor: each product read, each sum written and read, each row's h read and output written.
#include "ops/exchange_bench.h"

using namespace longcat;

LONGCAT_BENCH(ep_combine) {
  if (b.onGpu()) return;  // there windows are memory of several cards
  for (const ModelShape* m : b.models()) {
    for (int64_t ranks : {2, 8}) {
      if (m->experts % ranks != 0) continue;
      for (int64_t T : b.tokens(256)) {
        bench::OneRank rank(b, *m, ranks, T, false);
        b.once("ep_dispatch", rank.dispatchArgs());
        const auto traffic = rank.fill();
        b.once("ep_dispatch", rank.dispatchArgs());  // plans what the others have sent by now
        const double bytes = 4 * static_cast<double>(m->hidden) * (traffic.experts + traffic.came + traffic.sent + 2 * static_cast<double>(T));
        b.time({m, std::to_string(ranks) + " ranks", T, "", bytes, 0}, "ep_combine", rank.combineArgs());
      }
    }
  }
}
