// timestamp: its argument and its check.
#include "ops/timestamp/params.h"

#include "ops/check.h"

namespace longcat {
LONGCAT_DECLARE_BODIES(timestamp)
extern const OpSpec kTimestampOp;

namespace {

enum Arg { kOut, kNumArgs };
const TensorArg kTensors[kNumArgs] = {{"out", Use::out}};

void prepare(const OpArgs& args, void* storage) {
  const ArgCheck check(kTimestampOp, args);
  paramsAt<TimestampParams>(storage).out = check.dense<int64_t>(kOut, DType::i64, {1});
}

size_t threadScratch(const void*) { return 0; }

}  // namespace

const OpSpec kTimestampOp = {"timestamp", kTensors, kNumArgs, nullptr, 0, prepare, threadScratch, LONGCAT_CPU_BODIES(timestamp), LONGCAT_CUDA_BODY(timestamp)};

}  // namespace longcat
