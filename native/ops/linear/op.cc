// linear: its arguments and their checks.
#include "ops/linear/params.h"

#include "ops/check.h"

namespace longcat {
LONGCAT_DECLARE_BODIES(linear)
extern const OpSpec kLinearOp;

namespace {

enum Arg { kX, kRowIndex, kWeight, kScale, kBias, kOut, kRows, kScratch, kNumArgs };
const TensorArg kTensors[kNumArgs] = {{"x", Use::in, false, true},
                                      {"row_index", Use::in, true},
                                      {"weight"},
                                      {"scale", Use::in, true},
                                      {"bias", Use::in, true},
                                      {"out", Use::out},
                                      {"rows"},
                                      {"scratch", Use::out, true, true}};

void prepare(const OpArgs& args, void* storage) {
  const ArgCheck check(kLinearOp, args);
  auto& p = paramsAt<LinearParams>(storage);
  const int64_t outputs = check.size(kOut, 1), inputs = check.size(kX, 1);
  p.capacity = check.size(kOut, 0);
  p.activation = check.activation();
  p.outDtype = check.floatOrActivation(kOut);
  p.rowIndex = check.dense<const int32_t>(kRowIndex, DType::i32, {p.capacity});
  p.x = check.rowsOf(kX, p.activation, p.rowIndex ? kAnySize : p.capacity, inputs, &p.xStride);
  p.weight = check.weight(kWeight, kScale, outputs, inputs);
  p.bias = check.weight(kBias, -1, 1, outputs);
  p.out = check.rowsOf(kOut, p.outDtype, p.capacity, outputs, &p.outStride);
  p.rows = check.dense<const int32_t>(kRows, DType::i32, {1});
  p.scratch = check.wholeRows(kScratch, p.capacity, &p.scratchStride);
}

size_t threadScratch(const void*) { return 0; }

}  // namespace

const OpSpec kLinearOp = {"linear", kTensors, kNumArgs, nullptr, 0, prepare, threadScratch, LONGCAT_CPU_BODIES(linear), LONGCAT_CUDA_BODY(linear)};

}  // namespace longcat
