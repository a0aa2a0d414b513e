// token_logprobs: the log-probability of a given token in each row: logits_t - max - log Σ exp(logits - max), sums in float64.
#pragma once
#include "ops/weight.h"
namespace longcat {

// tensors: logits, targets, out, rows
struct TokenLogprobsParams {
  const float* logits;      // [R, vocabulary]
  const int32_t* targets;   // [R]; -1 gives 0
  float* out;               // [R]
  const int32_t* rows;      // [1]
  int64_t capacity, vocabulary;
};

}  // namespace longcat
