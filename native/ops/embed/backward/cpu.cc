// embed_backward on the CPU: a task takes some columns of every token, so that tokens of the same id meet in no other order, on whatever thread.
#include "ops/embed/backward/params.h"

#include "cpu/math.h"

namespace longcat::LONGCAT_ISA {

void embed_backward(const void* params, const CpuContext& context) {
  const auto& p = *static_cast<const EmbedBackwardParams*>(params);
  const int64_t rows = liveRows(p.rows, p.capacity);
  forColumnStrips(context, p.hidden, [&](int64_t begin, int64_t count) {
    for (int64_t t = 0; t < rows; ++t) addScaled(p.dOut + t * p.hidden + begin, count, 1.0f, p.dTable + p.tokens[t] * p.hidden + begin);
  });
}

}  // namespace longcat::LONGCAT_ISA
