// The list of operations: one line each. An operation's id is its place in the list.
#include "ops/registry.h"

#include <cstring>
#include <string>

#include "runtime/error.h"
#include "runtime/memory.h"

// A room whose op.cc is not there yet is left out (CMakeLists.txt defines LONGCAT_HAS_…).
#ifdef LONGCAT_HAS_EMBED
#define OP_EMBED(X) X(kEmbedOp)
#else
#define OP_EMBED(X)
#endif
#ifdef LONGCAT_HAS_NGRAM_EMBED
#define OP_NGRAM_EMBED(X) X(kNgramEmbedOp)
#else
#define OP_NGRAM_EMBED(X)
#endif
#ifdef LONGCAT_HAS_RMS_NORM
#define OP_RMS_NORM(X) X(kRmsNormOp)
#else
#define OP_RMS_NORM(X)
#endif
#ifdef LONGCAT_HAS_LINEAR
#define OP_LINEAR(X) X(kLinearOp)
#else
#define OP_LINEAR(X)
#endif
#ifdef LONGCAT_HAS_SWIGLU_MLP
#define OP_SWIGLU_MLP(X) X(kSwigluMlpOp)
#else
#define OP_SWIGLU_MLP(X)
#endif
#ifdef LONGCAT_HAS_MLA_PROJECT
#define OP_MLA_PROJECT(X) X(kMlaProjectOp)
#else
#define OP_MLA_PROJECT(X)
#endif
#ifdef LONGCAT_HAS_MLA_PREFILL
#define OP_MLA_PREFILL(X) X(kMlaPrefillOp)
#else
#define OP_MLA_PREFILL(X)
#endif
#ifdef LONGCAT_HAS_MLA_DECODE
#define OP_MLA_DECODE(X) X(kMlaDecodeOp)
#else
#define OP_MLA_DECODE(X)
#endif
#ifdef LONGCAT_HAS_MOE_ROUTE
#define OP_MOE_ROUTE(X) X(kMoeRouteOp)
#else
#define OP_MOE_ROUTE(X)
#endif
#ifdef LONGCAT_HAS_MOE_EXPERTS
#define OP_MOE_EXPERTS(X) X(kMoeExpertsOp)
#else
#define OP_MOE_EXPERTS(X)
#endif
#ifdef LONGCAT_HAS_STEP_PLAN
#define OP_STEP_PLAN(X) X(kStepPlanOp)
#else
#define OP_STEP_PLAN(X)
#endif
#ifdef LONGCAT_HAS_SAMPLE
#define OP_SAMPLE(X) X(kSampleOp)
#else
#define OP_SAMPLE(X)
#endif
#ifdef LONGCAT_HAS_TOKEN_LOGPROBS
#define OP_TOKEN_LOGPROBS(X) X(kTokenLogprobsOp)
#else
#define OP_TOKEN_LOGPROBS(X)
#endif

#define LONGCAT_OPS(X) \
  OP_EMBED(X)          \
  OP_NGRAM_EMBED(X)    \
  OP_RMS_NORM(X)       \
  OP_LINEAR(X)         \
  OP_SWIGLU_MLP(X)     \
  OP_MLA_PROJECT(X)    \
  OP_MLA_PREFILL(X)    \
  OP_MLA_DECODE(X)     \
  OP_MOE_ROUTE(X)      \
  OP_MOE_EXPERTS(X)    \
  OP_STEP_PLAN(X)      \
  OP_SAMPLE(X)         \
  OP_TOKEN_LOGPROBS(X)

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
