// What the tests of mla_prefill and mla_decode share: sequences in a paged cache whose unused rows are NaN, and attention in float64. A packed cache has
// latents that it holds exactly.
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "ops/harness.h"
#include "ops/latent_cache_test.h"
#include "ops/mla_decode/params.h"
#include "ops/mla_prefill/params.h"

namespace longcat::attention {

struct Sizes {
  int64_t heads, nope, rope, v, rank, blockSize;
  int64_t queryWidth() const { return nope + rope; }
  int64_t latentWidth() const { return rank + rope; }
  std::string name() const {
    std::string s;
    for (int64_t n : {heads, nope, rope, v, rank, blockSize}) s += (s.empty() ? "" : "/") + std::to_string(n);
    return s;
  }
};

/// Positions [from, to) of one sequence, as one step has them.
struct Chunk {
  int sequence;
  int64_t from, to;
};

/// Sequences with queries and latents for every position, and the expected outputs.
class Case {
 public:
  Sizes sizes;
  Fp8Weight kvB;              // scale has no memory unless FP8
  bool hasScale = false;
  bool packed;                // the cache is
  float softmaxScale;
  std::vector<std::vector<float>> query;    // of each sequence, [length][heads][nope+rope]
  std::vector<std::vector<float>> latent;   // [length][rank+rope]
  std::vector<std::vector<float>> expected; // [length][heads·v]

  Case(OpContext& t, Sizes s, DType dtype, const std::vector<int64_t>& lengths, bool packedCache = false)
      : sizes(s), packed(packedCache), softmaxScale(1 / std::sqrt(float(s.queryWidth()))) {
    const int64_t rows = s.heads * (s.nope + s.v);
    if (dtype == DType::f8e4m3) {
      kvB = t.randomFp8(rows, s.rank, -.2f, .2f);
      hasScale = true;
    } else {
      kvB.data = dtype == DType::bf16 ? t.randomBf16({rows, s.rank}, -.2f, .2f) : t.randomF32({rows, s.rank}, -.2f, .2f);
    }
    for (int64_t length : lengths) {
      query.push_back(t.randomFloats(length * s.heads * s.queryWidth(), -2, 2));
      latent.push_back(t.randomFloats(length * s.latentWidth(), -1, 1));
      if (packed) latent.back() = packedAndBack(latent.back(), s.rank, s.rope);
    }
    const std::vector<float> w = t.floats(kvB.data, hasScale ? &kvB.scale : nullptr);
    for (size_t i = 0; i < lengths.size(); ++i) expected.push_back(attend(w, query[i], latent[i]));
  }

  /// Rows of `values` (of one sequence) for a chunk.
  static std::vector<float> rowsOf(const std::vector<float>& values, int64_t from, int64_t to, int64_t width) {
    return {values.begin() + from * width, values.begin() + to * width};
  }

 private:
  std::vector<float> attend(const std::vector<float>& w, const std::vector<float>& q, const std::vector<float>& c) const {
    const Sizes& s = sizes;
    const int64_t length = static_cast<int64_t>(c.size()) / s.latentWidth(), outputs = s.nope + s.v;
    std::vector<float> out(length * s.heads * s.v);
    std::vector<double> expanded(length * outputs), p(length);
    for (int64_t h = 0; h < s.heads; ++h) {
      for (int64_t j = 0; j < length; ++j)
        for (int64_t o = 0; o < outputs; ++o) {
          double sum = 0;
          for (int64_t k = 0; k < s.rank; ++k) sum += double{w[(h * outputs + o) * s.rank + k]} * c[j * s.latentWidth() + k];
          expanded[j * outputs + o] = sum;
        }
      for (int64_t i = 0; i < length; ++i) {
        const float* query = q.data() + (i * s.heads + h) * s.queryWidth();
        double most = -INFINITY, total = 0;
        for (int64_t j = 0; j <= i; ++j) {
          double score = 0;
          for (int64_t d = 0; d < s.nope; ++d) score += query[d] * expanded[j * outputs + d];
          for (int64_t d = 0; d < s.rope; ++d) score += double{query[s.nope + d]} * c[j * s.latentWidth() + s.rank + d];
          p[j] = score * softmaxScale;
          most = std::max(most, p[j]);
        }
        for (int64_t j = 0; j <= i; ++j) total += p[j] = std::exp(p[j] - most);
        for (int64_t d = 0; d < s.v; ++d) {
          double sum = 0;
          for (int64_t j = 0; j <= i; ++j) sum += p[j] * expanded[j * outputs + s.nope + d];
          out[(i * s.heads + h) * s.v + d] = static_cast<float>(sum / total);
        }
      }
    }
    return out;
  }
};

/// One step's tensors: chunks in order, the first `prompts` of them prompt chunks. Capacity exceeds the rows; all beyond is NaN or −1.
struct Step {
  Tensor q, cache, positions, rowSlot, seqStart, seqSlot, blockTables, counts, splits, out, state, qLatent, partial, expanded, accumulator, roundPlan, latents;
  int64_t rows = 0, splitCount = 0, maxKeys = 0;

  /// `salt` permutes cache blocks and slots. On a GPU keys are expanded roundTiles · kKeyTile at a time. There is room for `spare` rows more.
  Step(OpContext& t, const Case& c, const std::vector<Chunk>& chunks, int prompts, int salt, int64_t roundTiles = 1, int64_t spare = 3) {
    const Sizes& s = c.sizes;
    const float nan = NAN;
    const int64_t sequences = static_cast<int64_t>(c.latent.size());
    int64_t longest = 1;
    for (const auto& l : c.latent) longest = std::max(longest, static_cast<int64_t>(l.size()) / s.latentWidth());
    const int64_t maxBlocks = (longest + s.blockSize - 1) / s.blockSize + 1, blocks = sequences * maxBlocks + 2;
    const int64_t slots = sequences + 1;
    const auto slotOf = [&](int sequence) { return static_cast<int32_t>((sequence * 7 + salt) % slots); };

    std::vector<float> cacheValues(blocks * s.blockSize * s.latentWidth(), nan), queries;
    std::vector<int32_t> tables(slots * maxBlocks, -1), position, slot, start = {0}, sequenceSlot, splitList;
    int64_t promptRows = 0;
    for (size_t i = 0; i < chunks.size(); ++i) {
      const Chunk& chunk = chunks[i];
      int32_t* table = tables.data() + slotOf(chunk.sequence) * maxBlocks;
      for (int64_t p = 0; p < chunk.to; ++p) {
        const int64_t b = p / s.blockSize, block = ((chunk.sequence * maxBlocks + b) * (salt % 2 ? 1 : 5) + salt) % blocks;
        table[b] = static_cast<int32_t>(blocks % 5 == 0 && salt % 2 == 0 ? chunk.sequence * maxBlocks + b : block);
        std::copy_n(c.latent[chunk.sequence].data() + p * s.latentWidth(), s.latentWidth(),
                    cacheValues.data() + (table[b] * s.blockSize + p % s.blockSize) * s.latentWidth());
      }
      for (int64_t p = chunk.from; p < chunk.to; ++p) {
        const float* from = c.query[chunk.sequence].data() + p * s.heads * s.queryWidth();
        queries.insert(queries.end(), from, from + s.heads * s.queryWidth());
        position.push_back(static_cast<int32_t>(p));
        slot.push_back(slotOf(chunk.sequence));
        if (static_cast<int>(i) < prompts) ++promptRows;
        else
          for (int64_t n = 0; n <= p / kSplitKeys; ++n) splitList.insert(splitList.end(), {static_cast<int32_t>(rows), static_cast<int32_t>(n)});
        ++rows;
      }
      start.push_back(static_cast<int32_t>(rows));
      if (static_cast<int>(i) < prompts) maxKeys += (chunk.to + kKeyTile - 1) / kKeyTile * kKeyTile;
      sequenceSlot.push_back(slotOf(chunk.sequence));
    }
    splitCount = static_cast<int64_t>(splitList.size()) / 2;
    const int64_t capacity = rows + spare, maxSplits = splitCount + 2;
    counts = t.i32({8}, {static_cast<int32_t>(rows), static_cast<int32_t>(promptRows), static_cast<int32_t>(chunks.size()), prompts, 0,
                         static_cast<int32_t>(splitCount), -1, -1});
    queries.resize(capacity * s.heads * s.queryWidth(), nan);
    position.resize(capacity, -1), slot.resize(capacity, -1), start.resize(chunks.size() + 3, -1), sequenceSlot.resize(chunks.size() + 2, -1);
    splitList.resize(2 * maxSplits, -1);
    q = t.f32({capacity, s.heads, s.queryWidth()}, queries);
    cache = c.packed ? packedCache(t, cacheValues, blocks, {s.rank, s.rope, s.blockSize}) : t.f32({blocks, s.blockSize, s.latentWidth()}, cacheValues);
    positions = t.i32({capacity}, position);
    rowSlot = t.i32({capacity}, slot);
    seqStart = t.i32({static_cast<int64_t>(start.size())}, start);
    seqSlot = t.i32({static_cast<int64_t>(sequenceSlot.size())}, sequenceSlot);
    blockTables = t.i32({slots, maxBlocks}, tables);
    splits = t.i32({maxSplits, 2}, splitList);
    out = t.f32({capacity, s.heads * s.v}, std::vector<float>(static_cast<size_t>(capacity * s.heads * s.v), nan));
    state = t.f32({capacity, s.heads, 2});
    qLatent = t.f32({capacity, s.heads, s.rank});
    partial = t.f32({maxSplits, s.heads, s.rank + 2});
    expanded = t.f32({roundTiles * kKeyTile, s.heads, s.nope + s.v});
    accumulator = t.f32({capacity, s.heads, s.v});
    latents = t.f32({roundTiles * kKeyTile, s.latentWidth()});
    roundPlan = t.i32({roundPlanNumbers(capacity, static_cast<int64_t>(sequenceSlot.size()), roundTiles * kKeyTile)});
  }

  OpArgs prefill(const Case& c) const {
    const Sizes& s = c.sizes;
    return args({&q, &cache, &c.kvB.data, c.hasScale ? &c.kvB.scale : nullptr, &positions, &seqStart, &seqSlot, &blockTables, &counts, &out, &state,
                 &expanded, &accumulator, &roundPlan, &latents},
                {double(s.heads), double(s.nope), double(s.rope), double(s.v), c.softmaxScale, double(maxKeys)});
  }
  OpArgs decode(const Case& c) const {
    const Sizes& s = c.sizes;
    return args({&q, &cache, &c.kvB.data, c.hasScale ? &c.kvB.scale : nullptr, &positions, &rowSlot, &blockTables, &counts, &splits, &qLatent,
                 &partial, &out},
                {double(s.heads), double(s.nope), double(s.rope), double(s.v), c.softmaxScale});
  }
};

}  // namespace longcat::attention
