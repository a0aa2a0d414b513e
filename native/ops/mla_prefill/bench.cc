// mla_prefill with the attention of each model.
#include "ops/mla_prefill/attention_case.h"

using namespace longcat;
using namespace longcat::attention;

LONGCAT_BENCH(mla_prefill) {
  struct Run { const char* model; int64_t heads, from, to; };
  for (const Run r : {Run{"mini", 4, 0, 64}, {"mini", 4, 0, 512}, {"mini", 4, 448, 512}, {"Lite", 32, 0, 128}, {"Flash", 64, 0, 128}}) {
    Sizes sizes{r.heads, 128, 64, 128, 512, 64};
    Case c(b, sizes, DType::bf16, {});
    c.query.push_back(b.randomFloats(r.to * r.heads * sizes.queryWidth()));
    c.latent.push_back(b.randomFloats(r.to * sizes.latentWidth()));
    Step step(b, c, {{0, r.from, r.to}}, 1, 1);
    const double pairs = double(r.to * (r.to + 1) - r.from * (r.from + 1)) / 2;
    const double flops = 2.0 * r.heads * (double(r.to) * 512 * 256 + pairs * 320);
    b.time(std::string(r.model) + " positions " + std::to_string(r.from) + " to " + std::to_string(r.to), "mla_prefill", step.prefill(c),
           4.0 * r.to * 576 + 2.0 * r.heads * 256 * 512, flops);
  }
}
