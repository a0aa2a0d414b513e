// sample at each model's vocabulary. Floor: the logits' bytes.
#include <algorithm>

#include "ops/harness_bench.h"
#include "ops/sample/params.h"

using namespace longcat;

namespace {

struct Way { const char* label; double temperature, topP, topK, logprobs, presence; };

constexpr int64_t kCounted = 2000;  // ids of a row that penalties count: what some thousand tokens of text have

/// What a row's slot holds (SampleField).
std::vector<double> fieldsOf(const Way& way, int64_t rows) {
  std::vector<double> fields;
  for (int64_t i = 0; i < rows; ++i)
    fields.insert(fields.end(), {way.temperature, way.topP, way.topK, 0, 1, way.presence, 0, static_cast<double>(i), -1, 0, 0, way.logprobs, 0});
  return fields;
}

/// `counted` ids of each row, evenly spread, each generated once.
std::vector<int32_t> adjustmentsOf(int64_t rows, int64_t counted, int64_t vocabulary) {
  std::vector<int32_t> words;
  for (int64_t i = 0; i < rows * counted; ++i) words.insert(words.end(), {static_cast<int32_t>(i % counted * (vocabulary / counted)), 1, 0});
  return words;
}

}  // namespace

LONGCAT_BENCH(sample) {
  for (const ModelShape* m : b.models()) {
    const int64_t vocabulary = m->vocabulary, words = (vocabulary + 31) / 32;
    for (int64_t T : b.tokens(b.onGpu() ? 256 : 16)) {
      const Tensor logits = b.random(DType::f32, {T, vocabulary}, -10, 10), position = b.i32({T});
      std::vector<int32_t> slot;
      for (int64_t i = 0; i < T; ++i) slot.push_back(static_cast<int32_t>(i));
      const Tensor slots = b.i32({T}, slot), live = b.i32({2}, {0, static_cast<int32_t>(T)}), mask = b.i32({T, words}), history = b.i32({T, 64});
      const Tensor allowed = b.i32({words}, std::vector<int32_t>(static_cast<size_t>(words), -1));
      const int64_t counted = std::min(kCounted, vocabulary / 2);
      const Tensor adjustments = b.i32({T, counted, kAdjustmentWords}, adjustmentsOf(T, counted, vocabulary));
      const Tensor numAdjustments = b.i32({T}, std::vector<int32_t>(static_cast<size_t>(T), static_cast<int32_t>(counted)));
      const Tensor tokens = b.empty(DType::i32, {T}), logprob = b.empty(DType::f32, {T});
      const Tensor topIds = b.empty(DType::i32, {T, kMaxLogprobs}), top = b.empty(DType::f32, {T, kMaxLogprobs});
      for (const Way& way : {Way{"greedy", 0, 1, 0, -1, 0}, Way{"greedy, penalties", 0, 1, 0, -1, 1}, Way{"greedy, 5 logprobs", 0, 1, 0, 5, 0},
                             Way{"temperature", 1, 1, 0, -1, 0}, Way{"top-p 0.9", 1, .9, 0, -1, 0}, Way{"top-p 0.9, penalties", 1, .9, 0, -1, 1},
                             Way{"top-k 40", 1, 1, 40, -1, 0}}) {
        const Tensor params = b.f64({T, kNumSampleFields}, fieldsOf(way, T));
        b.time({m, std::to_string(vocabulary) + " " + way.label, T, "", 4.0 * static_cast<double>(T * vocabulary), 0}, "sample",
               args({&logits, &slots, &position, &params, &allowed, &adjustments, &numAdjustments, &mask, &history, &tokens, &logprob, &topIds, &top,
                     &live, nullptr, nullptr, nullptr, nullptr, nullptr},
                    {0, static_cast<double>(T)}));
      }
    }
  }
}
