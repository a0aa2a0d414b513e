// random_fill: its arguments and their checks.
#include "ops/random_fill/params.h"

#include <cmath>

#include "ops/check.h"
#include "ops/random_fill/uniform.h"

namespace longcat {
LONGCAT_DECLARE_BODIES(random_fill)
extern const OpSpec kRandomFillOp;

namespace {

enum Arg { kOut, kNumArgs };
const TensorArg kTensors[kNumArgs] = {{"out", Use::out}};
enum ScalarArg { kSeed, kLow, kHigh, kNumScalarArgs };
const char* const kScalars[kNumScalarArgs] = {"seed", "low", "high"};

constexpr float kLargestE4m3 = 448;

void prepare(const OpArgs& args, void* storage) {
  const ArgCheck check(kRandomFillOp, args);
  auto& p = paramsAt<RandomFillParams>(storage);
  const Tensor& out = *args.tensor[kOut];
  check.requireArg(kOut, out.dtype == DType::f32 || out.dtype == DType::bf16 || out.dtype == DType::f8e4m3,
                   "must be float32, bfloat16 or float8_e4m3");
  check.requireArg(kOut, out.contiguous() || out.elements() == 0, "must be dense");
  p.out = out.data;
  p.dtype = out.dtype;
  p.elements = out.elements();
  p.stream = fill::streamOf(static_cast<uint64_t>(check.integer(kSeed, 0, (int64_t{1} << 53) - 1)));
  const float high = static_cast<float>(check.scalar(kHigh));
  p.low = static_cast<float>(check.scalar(kLow));
  p.span = high - p.low;
  p.highest = p.span > 0 ? std::nextafter(high, p.low) : high;
  require(p.span >= 0 && std::isfinite(p.span), "random_fill: low must not be above high, and both must be finite");
  require(out.dtype != DType::f8e4m3 || (p.low >= -kLargestE4m3 && high <= kLargestE4m3), "random_fill: float8_e4m3 ends at 448");
}

size_t threadScratch(const void*) { return 0; }

}  // namespace

const OpSpec kRandomFillOp = {"random_fill", kTensors, kNumArgs, kScalars, kNumScalarArgs, prepare, threadScratch,
                              LONGCAT_CPU_BODIES(random_fill), LONGCAT_CUDA_BODY(random_fill)};

}  // namespace longcat
