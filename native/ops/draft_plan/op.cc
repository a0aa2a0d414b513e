// draft_plan: its arguments and their checks.
#include "ops/draft_plan/params.h"

#include "ops/check.h"

namespace longcat {
LONGCAT_DECLARE_BODIES(draft_plan)
extern const OpSpec kDraftPlanOp;

namespace {

enum Arg { kCounts, kSeqStart, kSeqSlot, kPositions, kRowSlot, kHistory, kLengths, kFollowing, kDraftRow, kDraftSlot, kDraftPosition, kNumArgs };
const TensorArg kTensors[kNumArgs] = {{"counts"},
                                      {"seq_start"},
                                      {"seq_slot"},
                                      {"positions"},
                                      {"row_slot"},
                                      {"history"},
                                      {"lengths"},
                                      {"following", Use::out},
                                      {"draft_row", Use::out},
                                      {"draft_slot", Use::out},
                                      {"draft_position", Use::out}};

void prepare(const OpArgs& args, void* storage) {
  const ArgCheck check(kDraftPlanOp, args);
  auto& p = paramsAt<DraftPlanParams>(storage);
  p.capacity = check.size(kPositions, 0);
  p.maxSequences = check.size(kSeqSlot, 0);
  p.counts = check.dense<const int32_t>(kCounts, DType::i32, {8});
  p.seqStart = check.dense<const int32_t>(kSeqStart, DType::i32, {p.maxSequences + 1});
  p.seqSlot = check.dense<const int32_t>(kSeqSlot, DType::i32, {p.maxSequences});
  p.positions = check.dense<const int32_t>(kPositions, DType::i32, {p.capacity});
  p.rowSlot = check.dense<const int32_t>(kRowSlot, DType::i32, {p.capacity});
  p.history = check.dense<const int32_t>(kHistory, DType::i32, {kAnySize, kAnySize});
  p.historyStride = check.size(kHistory, 1);
  p.lengths = check.dense<const int32_t>(kLengths, DType::i32, {kAnySize});
  check.requireArg(kHistory, check.size(kHistory, 0) >= check.size(kLengths, 0), "must have a row a slot");
  p.following = check.dense<int32_t>(kFollowing, DType::i32, {p.capacity});
  p.draftRow = check.dense<int32_t>(kDraftRow, DType::i32, {p.maxSequences});
  p.draftSlot = check.dense<int32_t>(kDraftSlot, DType::i32, {p.maxSequences});
  p.draftPosition = check.dense<int32_t>(kDraftPosition, DType::i32, {p.maxSequences});
}

size_t threadScratch(const void*) { return 0; }

}  // namespace

const OpSpec kDraftPlanOp = {"draft_plan", kTensors, kNumArgs, nullptr, 0, prepare, threadScratch, LONGCAT_CPU_BODIES(draft_plan), LONGCAT_CUDA_BODY(draft_plan)};

}  // namespace longcat
