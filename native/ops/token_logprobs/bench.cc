// token_logprobs at mini's and the family's vocabulary.
#include <string>

#include "ops/harness.h"

using namespace longcat;

LONGCAT_BENCH(token_logprobs) {
  for (auto [rows, vocabulary] : {std::pair{64, 2048}, {4, 131072}}) {
    Tensor logits = b.randomF32({rows, vocabulary}, -10, 10), target = b.i32({rows}), out = b.f32({rows}), live = b.i32({1}, {rows});
    b.time(std::to_string(rows) + " x " + std::to_string(vocabulary), "token_logprobs", args({&logits, &target, &out, &live}),
           4.0 * rows * vocabulary, 0);
  }
}
