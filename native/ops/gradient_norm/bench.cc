// gradient_norm of as many numbers as mini's experts have, once whatever the tokens. Floor: the gradients read.
#include "ops/bench_training.h"

using namespace longcat;
using namespace longcat::bench;

LONGCAT_BENCH(gradient_norm) {
  for (const ModelShape* m : trainedModels(b)) {
    const int64_t count = 3 * m->experts * m->expertFfn * m->hidden;
    const Tensor gradients = f32(b, {count}), partial = room(b, {4096}), norm = room(b, {1}), factor = room(b, {1});
    b.time({m, std::to_string(count) + " numbers", 1, "", bytesOfFloats(number(count)), 2 * number(count)}, "gradient_norm",
           args({&gradients, &partial, &norm, &factor}, {1}));
  }
}
