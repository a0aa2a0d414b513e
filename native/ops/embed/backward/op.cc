// embed_backward: its arguments and their checks.
#include "ops/embed/backward/params.h"

#include "ops/check.h"

namespace longcat {
LONGCAT_DECLARE_CPU(embed_backward)
extern const OpSpec kEmbedBackwardOp;

namespace {

enum Arg { kTokens, kDTable, kDOut, kRows, kNumArgs };
const TensorArg kTensors[kNumArgs] = {{"tokens"}, {"d_table", Use::inout}, {"d_out"}, {"rows"}};

void prepare(const OpArgs& args, void* storage) {
  const ArgCheck check(kEmbedBackwardOp, args);
  auto& p = paramsAt<EmbedBackwardParams>(storage);
  p.capacity = check.size(kTokens, 0);
  p.hidden = check.size(kDOut, 1);
  p.tokens = check.dense<const int32_t>(kTokens, DType::i32, {p.capacity});
  p.dTable = check.dense<float>(kDTable, DType::f32, {kAnySize, p.hidden});
  p.dOut = check.dense<const float>(kDOut, DType::f32, {p.capacity, p.hidden});
  p.rows = check.dense<const int32_t>(kRows, DType::i32, {1});
}

size_t threadScratch(const void*) { return 0; }

}  // namespace

const OpSpec kEmbedBackwardOp = {"embed_backward", kTensors, kNumArgs, nullptr, 0, prepare, threadScratch, LONGCAT_CPU_BODIES(embed_backward), nullptr};

}  // namespace longcat
