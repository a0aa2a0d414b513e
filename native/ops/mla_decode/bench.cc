// mla_decode with the attention of each model.
#include "ops/mla_prefill/attention_case.h"

using namespace longcat;
using namespace longcat::attention;

LONGCAT_BENCH(mla_decode) {
  struct Run { const char* model; int64_t heads, batch, keys; };
  for (const Run r : {Run{"mini", 4, 1, 100}, {"mini", 4, 16, 100}, {"mini", 4, 1, 2000}, {"mini", 4, 16, 1000}, {"Lite", 32, 1, 1000},
                      {"Flash", 64, 1, 1000}, {"Flash", 64, 8, 1000}}) {
    Sizes sizes{r.heads, 128, 64, 128, 512, 64};
    Case c(b, sizes, DType::bf16, {});
    std::vector<Chunk> rows;
    for (int s = 0; s < r.batch; ++s) {
      c.query.push_back(b.randomFloats(r.keys * r.heads * sizes.queryWidth()));
      c.latent.push_back(b.randomFloats(r.keys * sizes.latentWidth()));
      rows.push_back({s, r.keys - 1, r.keys});
    }
    Step step(b, c, rows, 0, 1);
    b.time(std::string(r.model) + " batch " + std::to_string(r.batch) + ", " + std::to_string(r.keys) + " keys", "mla_decode", step.decode(c),
           4.0 * r.batch * r.keys * 576 + 2.0 * r.heads * 256 * 512, 2.0 * r.batch * r.heads * (256.0 * 512 + r.keys * 1088.0));
  }
}
