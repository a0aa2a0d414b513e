// mla_prefill_backward behind mla_prefill, against central differences in float64 of plain causal attention: five products and a
// softmax in float, 1e-5. Sequences of several tiles and of one row.
#include <numeric>

#include "ops/gradcheck.h"

using namespace longcat;
using namespace longcat::gradcheck;

namespace {

struct Sizes {
  std::vector<int64_t> lengths;
  int64_t heads, nope, rope, vDim, kvRank;
  int64_t T() const { return std::accumulate(lengths.begin(), lengths.end(), int64_t{0}); }
  int64_t query() const { return nope + rope; }
  int64_t width() const { return kvRank + rope; }
  int64_t expanded() const { return nope + vDim; }
};

const double kScale = 0.6;

struct Case {
  Sizes s;
  Tensor q, latents, kvB, dOut, seqStart, seqSlot, blockTables, positions, counts;
  Case(OpContext& t, const Sizes& sizes) : s(sizes) {
    q = t.randomF32({s.T(), s.heads, s.query()}, -2, 2), latents = t.randomF32({s.T(), s.width()}, -2, 2);
    kvB = t.randomF32({s.heads * s.expanded(), s.kvRank}), dOut = t.randomF32({s.T(), s.heads * s.vDim});
    // Blocks of one position: the latent of a sequence's position p is row start + p.
    const auto sequences = static_cast<int64_t>(s.lengths.size()), longest = *std::max_element(s.lengths.begin(), s.lengths.end());
    std::vector<int32_t> starts{0}, slots, at, tables(static_cast<size_t>(sequences * longest));
    for (int64_t i = 0; i < sequences; ++i) {
      const int64_t length = s.lengths[static_cast<size_t>(i)];
      slots.push_back(static_cast<int32_t>(i));
      for (int64_t j = 0; j < length; ++j) {
        tables[static_cast<size_t>(i * longest + j)] = starts.back() + static_cast<int32_t>(j);
        at.push_back(static_cast<int32_t>(j));
      }
      starts.push_back(starts.back() + static_cast<int32_t>(length));
    }
    seqStart = t.i32({sequences + 1}, starts), seqSlot = t.i32({sequences}, slots), blockTables = t.i32({sequences, longest}, tables);
    positions = t.i32({s.T()}, at);
    const auto rows = static_cast<int32_t>(s.T()), many = static_cast<int32_t>(sequences);
    counts = t.i32({8}, {rows, rows, many, many, 0, 0, 0, 0});
  }
};

struct Run {
  Tensor out, dQ, dLatents, dKvB;
  Run(OpContext& t, const Case& c, Isa isa, int threads) {
    const Sizes& s = c.s;
    const auto number = [](int64_t n) { return static_cast<double>(n); };
    const Tensor cache = t.f32({s.T(), 1, s.width()}, t.floats(c.latents)), state = t.f32({s.T(), s.heads, 2});
    out = t.f32({s.T(), s.heads * s.vDim}), dQ = t.f32({s.T(), s.heads, s.query()}), dLatents = t.f32({s.T(), s.width()});
    dKvB = t.f32({s.heads * s.expanded(), s.kvRank});
    const Tensor dExpanded = t.f32({s.T(), s.heads * s.expanded()}), dRopeKeys = t.f32({s.T(), s.heads * s.rope});
    t.run(isa, "mla_prefill",
          args({&c.q, &cache, &c.kvB, nullptr, &c.positions, &c.seqStart, &c.seqSlot, &c.blockTables, &c.counts, &out, &state, nullptr, nullptr, nullptr, nullptr},
               {number(s.heads), number(s.nope), number(s.rope), number(s.vDim), kScale, number(s.T())}),
          threads);
    t.run(isa, "mla_prefill_backward",
          args({&c.q, &c.latents, &c.kvB, &dKvB, &c.seqStart, &c.counts, &out, &state, &c.dOut, &dQ, &dLatents, &dExpanded, &dRopeKeys},
               {number(s.heads), number(s.nope), number(s.rope), number(s.vDim), kScale}),
          threads);
  }
};

/// Plain causal attention of all heads and sequences.
Doubles attend(const Sizes& s, const Doubles& q, const Doubles& latents, const Doubles& kvB) {
  Doubles out(static_cast<size_t>(s.T() * s.heads * s.vDim));
  int64_t first = 0;
  for (int64_t length : s.lengths) {
    for (int64_t h = 0; h < s.heads; ++h) {
      Doubles expanded;  // [length, nope+v]
      for (int64_t j = 0; j < length; ++j) {
        for (int64_t o = 0; o < s.expanded(); ++o) {
          double sum = 0;
          for (int64_t k = 0; k < s.kvRank; ++k) sum += kvB[(h * s.expanded() + o) * s.kvRank + k] * latents[(first + j) * s.width() + k];
          expanded.push_back(sum);
        }
      }
      for (int64_t i = 0; i < length; ++i) {
        const double* query = q.data() + ((first + i) * s.heads + h) * s.query();
        Doubles weights;
        double total = 0;
        for (int64_t j = 0; j <= i; ++j) {
          double score = 0;
          for (int64_t d = 0; d < s.nope; ++d) score += query[d] * expanded[j * s.expanded() + d];
          for (int64_t d = 0; d < s.rope; ++d) score += query[s.nope + d] * latents[(first + j) * s.width() + s.kvRank + d];
          weights.push_back(std::exp(score * kScale));
          total += weights.back();
        }
        for (int64_t j = 0; j <= i; ++j) {
          for (int64_t d = 0; d < s.vDim; ++d)
            out[((first + i) * s.heads + h) * s.vDim + d] += weights[j] / total * expanded[j * s.expanded() + s.nope + d];
        }
      }
    }
    first += length;
  }
  return out;
}

}  // namespace

LONGCAT_TEST(mla_prefill_backward) {
  for (const Sizes& s : {Sizes{{1}, 1, 1, 2, 1, 1}, Sizes{{4, 1, 6}, 2, 3, 2, 4, 5}, Sizes{{67, 2, 70}, 1, 1, 2, 2, 1}}) {
    const Case c(t, s);
    Doubles q = doubles(t.floats(c.q)), latents = doubles(t.floats(c.latents)), kvB = doubles(t.floats(c.kvB));
    const Doubles direction = doubles(t.floats(c.dOut));
    const auto loss = [&] { return dot(attend(s, q, latents, kvB), direction); };
    const std::vector<float> wantQ = differences(q, loss), wantLatents = differences(latents, loss), wantKvB = differences(kvB, loss);
    for (Isa isa : t.isasOf("mla_prefill_backward")) {
      const Run run(t, c, isa, 2);
      t.expectClose("dq", t.floats(run.dQ), wantQ, 1e-5);
      t.expectClose("dlatents", t.floats(run.dLatents), wantLatents, 1e-5);
      t.expectClose("dW_kvb", t.floats(run.dKvB), wantKvB, 1e-5);
    }
  }
}

// numerics 2: a sequence's gradients have the same bits on any number of threads and whatever other sequences there are.
LONGCAT_TEST(mla_prefill_backward) {
  const Case c(t, {{150, 3, 64, 130}, 3, 16, 8, 12, 20});
  const Sizes last{{130}, 3, 16, 8, 12, 20};
  Case alone(t, last);
  const auto tail = [&](const Tensor& of, int64_t width) {
    const std::vector<float> all = t.floats(of);
    return std::vector<float>(all.end() - 130 * width, all.end());
  };
  alone.q = t.f32({130, 3, 24}, tail(c.q, 72)), alone.latents = t.f32({130, 28}, tail(c.latents, 28)), alone.dOut = t.f32({130, 36}, tail(c.dOut, 36));
  alone.kvB = c.kvB;
  for (Isa isa : t.isasOf("mla_prefill_backward")) {
    std::vector<float> first;
    for (int threads : {1, 2, 3}) {
      const Run run(t, c, isa, threads), single(t, alone, isa, threads);
      const std::vector<float> all = joined(t, {&run.dQ, &run.dLatents, &run.dKvB});
      if (threads == 1) first = all;
      t.expectSameBits("all gradients on " + std::to_string(threads) + " threads", all, first);
      t.expectSameBits("dq of the last sequence alone", t.floats(single.dQ), tail(run.dQ, 72));
      t.expectSameBits("dlatents of the last sequence alone", t.floats(single.dLatents), tail(run.dLatents, 28));
    }
  }
}
