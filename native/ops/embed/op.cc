// embed: its arguments and their checks.
#include "ops/embed/params.h"

#include "ops/check.h"

namespace longcat {
LONGCAT_DECLARE_BODIES(embed)
extern const OpSpec kEmbedOp;

namespace {

enum Arg { kTokens, kTable, kOut, kRows, kNumArgs };
const TensorArg kTensors[kNumArgs] = {{"tokens"}, {"table"}, {"out", Use::out}, {"rows"}};

void prepare(const OpArgs& args, void* storage) {
  const ArgCheck check(kEmbedOp, args);
  auto& p = paramsAt<EmbedParams>(storage);
  p.capacity = check.size(kTokens, 0);
  p.tokens = check.dense<const int32_t>(kTokens, DType::i32, {p.capacity});
  p.table = check.weight(kTable, -1, kAnySize, kAnySize);
  p.out = check.rowsOf(kOut, DType::f32, p.capacity, p.table.columns, &p.outStride);
  p.rows = check.dense<const int32_t>(kRows, DType::i32, {1});
}

size_t threadScratch(const void*) { return 0; }

}  // namespace

const OpSpec kEmbedOp = {"embed", kTensors, kNumArgs, nullptr, 0, prepare, threadScratch, LONGCAT_CPU_BODIES(embed), LONGCAT_CUDA_BODY(embed)};

}  // namespace longcat
