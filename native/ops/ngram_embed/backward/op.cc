// ngram_embed_backward: its arguments and their checks.
#include "ops/ngram_embed/backward/params.h"

#include "ops/check.h"
#include "ops/ngram_embed/plan.h"

namespace longcat {
LONGCAT_DECLARE_CPU(ngram_embed_backward)
extern const OpSpec kNgramEmbedBackwardOp;

namespace {

enum Arg { kPositions, kRowSlot, kHistory, kDWordTable, kDOut, kRows, kTables, kNumArgs };
const TensorArg kTensors[kNumArgs] = {{"positions"}, {"row_slot"}, {"history"}, {"d_word_table", Use::inout}, {"d_out"}, {"rows"}, {"tables...", Use::inout}};
enum ScalarArg { kNeighbors, kSplits, kEndId, kNumScalarArgs };
const char* const kScalars[kNumScalarArgs] = {"neighbors", "splits", "end_id"};
constexpr int kPerTable = 4;

void prepare(const OpArgs& args, void* storage) {
  const ArgCheck check(kNgramEmbedBackwardOp, args);
  auto& p = paramsAt<NgramEmbedBackwardParams>(storage);
  p.neighbors = static_cast<int32_t>(check.integer(kNeighbors, 2, 64));
  p.splits = static_cast<int32_t>(check.integer(kSplits, 1, kMaxTrainedNgramTables));
  p.endId = static_cast<int32_t>(check.integer(kEndId, -1, INT32_MAX));
  p.numTables = (p.neighbors - 1) * p.splits;
  require(p.numTables <= kMaxTrainedNgramTables, "ngram_embed_backward takes at most " + std::to_string(kMaxTrainedNgramTables) +
                                                     " tables, got (neighbors - 1) x splits = " + std::to_string(p.numTables));
  require(args.numTensors == kTables + kPerTable * p.numTables,
          "ngram_embed_backward: table, projection and their gradients for each of " + std::to_string(p.numTables) + " n-grams are wanted: " +
              std::to_string(kTables + kPerTable * p.numTables) + " tensors in all, got " + std::to_string(args.numTensors));
  p.capacity = check.size(kPositions, 0);
  p.hidden = check.size(kDOut, 1);
  p.positions = check.dense<const int32_t>(kPositions, DType::i32, {p.capacity});
  p.rowSlot = check.dense<const int32_t>(kRowSlot, DType::i32, {p.capacity});
  p.history = check.dense<const int32_t>(kHistory, DType::i32, {kAnySize, kAnySize});
  p.historyStride = check.size(kHistory, 1);
  p.dWordTable = check.dense<float>(kDWordTable, DType::f32, {kAnySize, p.hidden});
  p.vocabulary = check.size(kDWordTable, 0);
  p.dOut = check.dense<const float>(kDOut, DType::f32, {p.capacity, p.hidden});
  p.rows = check.dense<const int32_t>(kRows, DType::i32, {1});
  p.width = p.hidden / p.numTables;
  for (int i = 0; i < p.numTables; ++i) {
    const int at = kTables + kPerTable * i;
    const Trainable table = trainable(check, at, at + 1, kAnySize, p.width), projection = trainable(check, at + 2, at + 3, p.hidden, p.width);
    check.requireArg(at, table.weight.rows > 0 && table.weight.rows <= INT32_MAX, "must have from 1 to 2147483647 rows");
    p.tables[i] = {table.values(), table.gradient, projection.values(), projection.gradient, table.weight.rows};
  }
}

/// A table's rows of some tokens, and their gradients.
size_t threadScratch(const void* params) {
  return static_cast<size_t>(2 * kNgramRows * static_cast<const NgramEmbedBackwardParams*>(params)->width) * sizeof(float);
}

}  // namespace

const OpSpec kNgramEmbedBackwardOp = {"ngram_embed_backward", kTensors, kNumArgs, kScalars, kNumScalarArgs, prepare, threadScratch,
                                      LONGCAT_CPU_BODIES(ngram_embed_backward), nullptr};

}  // namespace longcat
