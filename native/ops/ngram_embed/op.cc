// ngram_embed: its arguments and their checks.
#include "ops/ngram_embed/params.h"

#include "ops/check.h"
#include "ops/ngram_embed/plan.h"

namespace longcat {
LONGCAT_DECLARE_BODIES(ngram_embed)
extern const OpSpec kNgramEmbedOp;

namespace {

enum Arg { kPositions, kRowSlot, kHistory, kWordTable, kOut, kRows, kTables, kNumArgs };
const TensorArg kTensors[kNumArgs] = {{"positions"}, {"row_slot"}, {"history"}, {"word_table"}, {"out", Use::out}, {"rows"}, {"tables..."}};
enum ScalarArg { kNeighbors, kSplits, kEndId, kNumScalarArgs };
const char* const kScalars[kNumScalarArgs] = {"neighbors", "splits", "end_id"};

void prepareTables(const ArgCheck& check, NgramEmbedParams& p, int64_t hidden) {
  const int64_t width = hidden / p.numTables;
  require(width * p.numTables == hidden,
          "ngram_embed: hidden size " + std::to_string(hidden) + " is not a multiple of its " + std::to_string(p.numTables) + " tables");
  for (int i = 0; i < p.numTables; ++i) {
    p.tables[i] = check.weight(kTables + 2 * i, -1, kAnySize, width);
    const bool hashable = p.tables[i].rows > 0 && p.tables[i].rows <= INT32_MAX;
    check.requireArg(kTables + 2 * i, hashable, "must have from 1 to 2147483647 rows");
    const WeightView projection = check.weight(kTables + 2 * i + 1, -1, hidden, width);
    if (i == 0) p.projectionDtype = projection.dtype;
    check.requireArg(kTables + 2 * i + 1, projection.dtype == p.projectionDtype, "has another dtype than the first projection");
    p.projectionData[i] = projection.data;
  }
}

void prepare(const OpArgs& args, void* storage) {
  const ArgCheck check(kNgramEmbedOp, args);
  auto& p = paramsAt<NgramEmbedParams>(storage);
  p.neighbors = static_cast<int32_t>(check.integer(kNeighbors, 2, 64));
  p.splits = static_cast<int32_t>(check.integer(kSplits, 1, kMaxNgramTables));
  p.endId = static_cast<int32_t>(check.integer(kEndId, -1, INT32_MAX));
  p.numTables = (p.neighbors - 1) * p.splits;
  require(p.numTables <= kMaxNgramTables, "ngram_embed takes at most " + std::to_string(kMaxNgramTables) + " tables, got (neighbors - 1) x splits = " +
                                              std::to_string(p.numTables));
  require(args.numTensors == kTables + 2 * p.numTables,
          "ngram_embed: a table and a projection for each of " + std::to_string(p.numTables) + " n-grams are wanted: " +
              std::to_string(kTables + 2 * p.numTables) + " tensors in all, got " + std::to_string(args.numTensors));
  p.capacity = check.size(kPositions, 0);
  p.positions = check.dense<const int32_t>(kPositions, DType::i32, {p.capacity});
  p.rowSlot = check.dense<const int32_t>(kRowSlot, DType::i32, {p.capacity});
  p.history = check.dense<const int32_t>(kHistory, DType::i32, {kAnySize, kAnySize});
  p.historyStride = check.size(kHistory, 1);
  p.wordTable = check.weight(kWordTable, -1, kAnySize, kAnySize);
  const int64_t hidden = p.wordTable.columns;
  p.out = check.dense<float>(kOut, DType::f32, {p.capacity, hidden});
  p.rows = check.dense<const int32_t>(kRows, DType::i32, {1});
  prepareTables(check, p, hidden);
}

size_t threadScratch(const void* params) { return ngramScratchBytes(static_cast<const NgramEmbedParams*>(params)->tables[0].columns); }

}  // namespace

const OpSpec kNgramEmbedOp = {"ngram_embed", kTensors,  kNumArgs,      kScalars,
                              kNumScalarArgs, prepare, threadScratch, LONGCAT_CPU_BODIES(ngram_embed), LONGCAT_CUDA_BODY(ngram_embed)};

}  // namespace longcat
