// adamw over as many numbers as mini's experts have, once whatever the tokens. Floor: four memories read, three written.
#include "ops/bench_training.h"

using namespace longcat;
using namespace longcat::bench;

LONGCAT_BENCH(adamw) {
  for (const ModelShape* m : trainedModels(b)) {
    const int64_t count = 3 * m->experts * m->expertFfn * m->hidden;
    const Tensor weight = f32(b, {count}), gradient = f32(b, {count}), momentum = f32(b, {count}), variance = b.random(DType::f32, {count}, 0, 1), factor = f32(b, {1});
    b.time({m, std::to_string(count) + " numbers", 1, "", bytesOfFloats(7 * number(count)), 16 * number(count)}, "adamw",
           args({&weight, &gradient, &momentum, &variance, &factor}, {1e-6, 0.9, 0.95, 1e-16, 0.1, 1}));
  }
}
