// sample at mini's and the family's vocabulary.
#include <string>

#include "ops/harness.h"
#include "ops/sample/params.h"
#include "ops/step_plan/params.h"

using namespace longcat;

LONGCAT_BENCH(sample) {
  struct Run { const char* label; double temperature, topP, topK, logprobs; };
  for (auto [rows, vocabulary] : {std::pair<int64_t, int64_t>{1, 2048}, {16, 2048}, {1, 131072}, {16, 131072}}) {
    for (const Run r : {Run{"greedy", 0, 1, 0, -1}, {"greedy, 5 logprobs", 0, 1, 0, 5}, {"temperature", 1, 1, 0, -1}, {"top-p 0.9", 1, .9, 0, -1},
                        {"top-k 40", 1, 1, 40, -1}}) {
      Tensor logits = b.randomF32({rows, vocabulary}, -10, 10), slots = b.i32({rows}), position = b.i32({rows});
      std::vector<double> fields;
      for (int64_t i = 0; i < rows; ++i) {
        reinterpret_cast<int32_t*>(slots.data)[i] = static_cast<int32_t>(i);
        fields.insert(fields.end(), {r.temperature, r.topP, r.topK, 0, 1, 0, 0, double(i), -1, 0, 0, r.logprobs, 0});
      }
      const int64_t words = (vocabulary + 31) / 32;
      Tensor params = b.f64({rows, kNumSampleFields}, fields), allowed = b.i32({words}, std::vector<int32_t>(words, -1));
      Tensor counts = b.i32({rows, vocabulary}), bias = b.f32({rows, vocabulary}), mask = b.i32({rows, words}), history = b.i32({rows, 64});
      Tensor tokens = b.i32({rows}), logprob = b.f32({rows}), topIds = b.i32({rows, 20}), top = b.f32({rows, 20}), live = b.i32({8});
      reinterpret_cast<int32_t*>(live.data)[numLogitRows] = static_cast<int32_t>(rows);
      b.time(std::to_string(rows) + " x " + std::to_string(vocabulary) + " " + r.label, "sample",
             args({&logits, &slots, &position, &params, &allowed, &counts, &bias, &mask, &history, &tokens, &logprob, &topIds, &top, &live, nullptr,
                   nullptr, nullptr}),
             4.0 * rows * vocabulary, 0);
    }
  }
}
