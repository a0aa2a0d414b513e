// The list of operations: one line each. An operation's id is its place in the list.
#include "ops/registry.h"

#include <cstring>
#include <string>

#include "runtime/error.h"
#include "runtime/memory.h"

#define LONGCAT_OPS(X)     \
  X(kEmbedOp)              \
  X(kNgramEmbedOp)         \
  X(kRmsNormOp)            \
  X(kLinearOp)             \
  X(kSwigluMlpOp)          \
  X(kMlaProjectOp)         \
  X(kMlaPrefillOp)         \
  X(kMlaDecodeOp)          \
  X(kMoeRouteOp)           \
  X(kMoeExpertsOp)         \
  X(kEpDispatchOp)         \
  X(kEpCombineOp)          \
  X(kStepPlanOp)           \
  X(kDraftPlanOp)          \
  X(kSampleOp)             \
  X(kTokenLogprobsOp)      \
  X(kRandomFillOp)         \
  X(kTimestampOp)          \
  X(kLinearBackwardOp)     \
  X(kRmsNormBackwardOp)    \
  X(kSwigluMlpBackwardOp)  \
  X(kMlaProjectBackwardOp) \
  X(kMlaPrefillBackwardOp) \
  X(kMoeRouteBackwardOp)   \
  X(kMoeExpertsBackwardOp) \
  X(kEmbedBackwardOp)      \
  X(kNgramEmbedBackwardOp) \
  X(kCrossEntropyOp)       \
  X(kHiddenZLossOp)        \
  X(kBalanceLossOp)        \
  X(kGradientNormOp)       \
  X(kAdamwOp)

namespace longcat {

#define LONGCAT_DECLARE_OP(name) extern const OpSpec name;
LONGCAT_OPS(LONGCAT_DECLARE_OP)

const OpSpec* const* allOps(int* count) {
#define LONGCAT_LIST_OP(name) &name,
  static const OpSpec* const ops[] = {LONGCAT_OPS(LONGCAT_LIST_OP) nullptr};
  *count = static_cast<int>(sizeof(ops) / sizeof(ops[0])) - 1;
  return ops;
}

const OpSpec* findOp(const char* name) {
  int count = 0;
  const OpSpec* const* ops = allOps(&count);
  for (int i = 0; i < count; ++i) {
    if (std::strcmp(ops[i]->name, name) == 0) return ops[i];
  }
  return nullptr;
}

bool isVariadic(const OpSpec& spec) {
  if (spec.numTensors == 0) return false;
  const char* last = spec.tensors[spec.numTensors - 1].name;
  const size_t length = std::strlen(last);
  return length >= 3 && std::strcmp(last + length - 3, "...") == 0;
}

const TensorArg& tensorArg(const OpSpec& spec, int i) { return spec.tensors[i < spec.numTensors ? i : spec.numTensors - 1]; }

bool readsInto(const OpSpec& spec, const OpArgs& args, int i) {
  for (int j = 0; j < args.numTensors; ++j) {
    if (args.tensor[j] && tensorArg(spec, j).use != Use::out && overlap(*args.tensor[i], *args.tensor[j])) return true;
  }
  return false;
}

void checkArity(const OpSpec& spec, const OpArgs& args) {
  const std::string name = spec.name;
  const bool variadic = isVariadic(spec);
  require(variadic ? args.numTensors >= spec.numTensors - 1 && args.numTensors <= kMaxTensors : args.numTensors == spec.numTensors,
          name + ": " + std::to_string(args.numTensors) + " tensors given, " + (variadic ? "at least " : "") +
              std::to_string(variadic ? spec.numTensors - 1 : spec.numTensors) + " wanted");
  require(args.numScalars == spec.numScalars, name + ": " + std::to_string(args.numScalars) + " numbers given, " +
                                                  std::to_string(spec.numScalars) + " wanted");
  for (int i = 0; i < args.numTensors; ++i) {
    const TensorArg& arg = tensorArg(spec, i);
    require(args.tensor[i] || arg.optional, name + ": tensor \"" + arg.name + "\" is missing");
  }
}

}  // namespace longcat
