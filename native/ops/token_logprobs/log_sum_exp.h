// log Σ exp over a row of logits, as `token_logprobs` and `sample` both need it.
#pragma once

#include <cstdint>

namespace longcat {

/// Of n logits in float64, summed in ascending id: maximum + log Σ exp(logit - maximum). A NaN counts as −∞; all −∞ gives −∞.
double logSumExp(const float* logits, int64_t n);

/// logit − logSumExp for one id, −9999 for −∞ and NaN (the public API's finite floor).
float logprobOf(float logit, double logSum);

constexpr float kLogprobFloor = -9999.0f;

}  // namespace longcat
