// balance_loss: its arguments and their checks.
#include "ops/balance_loss/params.h"

#include "ops/check.h"

namespace longcat {
LONGCAT_DECLARE_CPU(balance_loss)
extern const OpSpec kBalanceLossOp;

namespace {

enum Arg { kScores, kIds, kLoss, kShare, kProbability, kDScore, kRows, kNumArgs };
const TensorArg kTensors[kNumArgs] = {{"scores"}, {"ids"}, {"loss", Use::out}, {"share", Use::out}, {"probability", Use::out}, {"d_score", Use::out}, {"rows"}};
enum ScalarArg { kExperts, kGroups, kMeanExperts, kAlpha, kNumScalarArgs };
const char* const kScalars[kNumScalarArgs] = {"experts", "groups", "mean_experts", "alpha"};

void prepare(const OpArgs& args, void* storage) {
  const ArgCheck check(kBalanceLossOp, args);
  auto& p = paramsAt<BalanceLossParams>(storage);
  p.capacity = check.size(kScores, 0);
  p.all = check.size(kScores, 1);
  p.topK = check.size(kIds, 1);
  p.experts = check.integer(kExperts, 1, p.all);
  p.groups = check.integer(kGroups, 1, p.experts);
  require(p.experts % p.groups == 0, "balance_loss: " + std::to_string(p.experts) + " experts cannot be cut in " + std::to_string(p.groups) + " equal groups");
  p.meanExperts = check.scalar(kMeanExperts);
  p.alpha = check.scalar(kAlpha);
  const double most = static_cast<double>(p.topK);
  require(p.meanExperts > 0 && (p.experts < p.all ? p.meanExperts < most : p.meanExperts <= most),
          "balance_loss: mean_experts must be above 0 and, with zero experts, below the " + std::to_string(p.topK) + " that a token chooses, is " +
              std::to_string(p.meanExperts));
  p.scores = check.dense<const float>(kScores, DType::f32, {p.capacity, p.all});
  p.ids = check.dense<const int32_t>(kIds, DType::i32, {p.capacity, p.topK});
  p.loss = check.dense<float>(kLoss, DType::f32, {1});
  p.share = check.dense<float>(kShare, DType::f32, {p.groups + 1});
  p.probability = check.dense<float>(kProbability, DType::f32, {p.groups + 1});
  p.dScore = check.dense<float>(kDScore, DType::f32, {p.all});
  p.rows = check.dense<const int32_t>(kRows, DType::i32, {1});
}

size_t threadScratch(const void*) { return 0; }

}  // namespace

const OpSpec kBalanceLossOp = {"balance_loss", kTensors, kNumArgs, kScalars, kNumScalarArgs, prepare, threadScratch, LONGCAT_CPU_BODIES(balance_loss), nullptr};

}  // namespace longcat
