// embed_backward on the CPU: rows added by id.
#include "ops/embed/backward/params.h"

#include "cpu/scatter.h"

namespace longcat::LONGCAT_ISA {

void embed_backward(const void* params, const CpuContext& context) {
  const auto& p = *static_cast<const EmbedBackwardParams*>(params);
  addRowsById(context, {p.dOut, p.hidden}, liveRows(p.rows, p.capacity), p.hidden, [&](int64_t t) { return p.tokens[t]; }, 1.0f, p.dTable);
}

}  // namespace longcat::LONGCAT_ISA
