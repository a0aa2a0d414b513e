// token_logprobs on the CPU: one task a row.
#include "ops/token_logprobs/params.h"

#include "ops/op.h"
#include "ops/token_logprobs/log_sum_exp.h"

namespace longcat::LONGCAT_ISA {

void token_logprobs(const void* params, const CpuContext& context) {
  const auto& p = *static_cast<const TokenLogprobsParams*>(params);
  const int64_t rows = *p.rows < p.capacity ? *p.rows : p.capacity;
  context.pool.parallelFor(rows, [&](int64_t r, int) {
    const float* logits = p.logits + r * p.vocabulary;
    const int32_t target = p.targets[r];
    p.out[r] = target < 0 || target >= p.vocabulary ? 0.0f : logprobOf(logits[target], logSumExp(logits, p.vocabulary));
  });
}

}  // namespace longcat::LONGCAT_ISA
