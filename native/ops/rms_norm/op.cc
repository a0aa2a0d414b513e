// rms_norm: its arguments and their checks.
#include "ops/rms_norm/params.h"

#include "ops/check.h"

namespace longcat {
LONGCAT_DECLARE_BODIES(rms_norm)
extern const OpSpec kRmsNormOp;

namespace {

enum Arg { kX, kAdd, kAdd2, kWeight, kSum, kOut, kRows, kNumArgs };
const TensorArg kTensors[kNumArgs] = {{"x"},      {"add", Use::in, true, true}, {"add2", Use::in, true, true}, {"weight"}, {"sum", Use::out, true},
                                      {"out", Use::out, false, true}, {"rows"}};
const char* const kScalars[] = {"eps"};

void prepare(const OpArgs& args, void* storage) {
  const ArgCheck check(kRmsNormOp, args);
  auto& p = paramsAt<RmsNormParams>(storage);
  p.capacity = check.size(kX, 0);
  p.width = check.size(kX, 1);
  p.activation = check.activation();
  p.xDtype = check.floatOrActivation(kX);
  p.x = check.rowsOf(kX, p.xDtype, p.capacity, p.width, &p.xStride);
  p.add = check.rowsOf(kAdd, p.activation, p.capacity, p.width, &p.addStride);
  p.add2 = check.rowsOf(kAdd2, p.activation, p.capacity, p.width, &p.add2Stride);
  p.weight = check.weight(kWeight, -1, 1, p.width);
  p.sum = check.rowsOf(kSum, p.xDtype, p.capacity, p.width, &p.sumStride);
  p.out = check.rowsOf(kOut, p.activation, p.capacity, p.width, &p.outStride);
  p.rows = check.dense<const int32_t>(kRows, DType::i32, {1});
  p.eps = static_cast<float>(check.scalar(0));
}

size_t threadScratch(const void*) { return 0; }

}  // namespace

const OpSpec kRmsNormOp = {"rms_norm", kTensors, kNumArgs, kScalars, 1, prepare, threadScratch, LONGCAT_CPU_BODIES(rms_norm), LONGCAT_CUDA_BODY(rms_norm)};

}  // namespace longcat
