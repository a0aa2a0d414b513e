// mla_project_backward against central differences in float64 of the projection as docs/model.md has it: four products and a norm in a
// row in float, gradients up to some 30: 1e-5 of each.
#include "ops/gradcheck.h"

using namespace longcat;
using namespace longcat::gradcheck;

namespace {

struct Sizes {
  int64_t T, hidden, heads, nope, rope, qRank, kvRank;
  int64_t queries() const { return heads * (nope + rope); }
  int64_t width() const { return kvRank + rope; }
};

const double kEps = 1e-6, kQScale = 1.3, kKvScale = 1.7;

/// What is trained, and the operation's other inputs.
struct Case {
  Sizes s;
  Tensor x, qA, qABias, qANorm, qB, kvA, kvABias, kvANorm, cosSin, dQ, dLatents, rows;
  Case(OpContext& t, const Sizes& sizes) : s(sizes) {
    x = t.randomF32({s.T, s.hidden}, -2, 2);
    qA = t.randomF32({s.qRank, s.hidden}), qABias = t.randomF32({1, s.qRank}), qANorm = t.randomF32({1, s.qRank}, 0.5f, 1.5f);
    qB = t.randomF32({s.queries(), s.qRank});
    kvA = t.randomF32({s.width(), s.hidden}), kvABias = t.randomF32({1, s.width()}), kvANorm = t.randomF32({1, s.kvRank}, 0.5f, 1.5f);
    std::vector<float> angles = t.randomFloats(s.T * s.rope / 2, -3, 3), turns;
    for (int64_t r = 0; r < s.T; ++r) {
      for (int64_t j = 0; j < s.rope; ++j) {
        const float angle = angles[static_cast<size_t>(r * (s.rope / 2) + j % (s.rope / 2))];
        turns.push_back(j < s.rope / 2 ? std::cos(angle) : std::sin(angle));
      }
    }
    cosSin = t.f32({s.T, s.rope}, turns);
    dQ = t.randomF32({s.T, s.heads, s.nope + s.rope}), dLatents = t.randomF32({s.T, s.width()});
    rows = t.i32({1}, {static_cast<int32_t>(s.T)});
  }
};

/// Gradients and scratch of one run.
struct Run {
  Tensor dQA, dQABias, dQANorm, dQB, dKvA, dKvABias, dKvANorm, dX;
  Run(OpContext& t, const Case& c, Isa isa, int threads) {
    const Sizes& s = c.s;
    dQA = t.f32({s.qRank, s.hidden}), dQABias = t.f32({1, s.qRank}), dQANorm = t.f32({1, s.qRank}), dQB = t.f32({s.queries(), s.qRank});
    dKvA = t.f32({s.width(), s.hidden}), dKvABias = t.f32({1, s.width()}), dKvANorm = t.f32({1, s.kvRank}), dX = t.f32({s.T, s.hidden});
    const Tensor dQ = t.f32({s.T, s.heads, s.nope + s.rope}, t.floats(c.dQ)), dLatents = t.f32({s.T, s.width()}, t.floats(c.dLatents));
    const Tensor a = t.f32({s.T, s.qRank}), b = t.f32({s.T, s.qRank}), d = t.f32({s.T, s.qRank}), kv = t.f32({s.T, s.width()}), scales = t.f32({2, s.T});
    t.run(isa, "mla_project_backward",
          args({&c.x, &c.qA, &dQA, &c.qABias, &dQABias, &c.qANorm, &dQANorm, &c.qB, &dQB, &c.kvA, &dKvA, &c.kvABias, &dKvABias, &c.kvANorm, &dKvANorm,
                &c.cosSin, &dQ, &dLatents, &dX, &a, &b, &d, &kv, &scales, &c.rows},
               {static_cast<double>(s.heads), static_cast<double>(s.nope), static_cast<double>(s.rope), kEps, kQScale, kKvScale}),
          threads);
  }
};

/// RoPE of interleaved pairs in[0 … rope), to halves.
void rotate(const double* in, const double* cosSin, int64_t rope, double* out) {
  const int64_t half = rope / 2;
  for (int64_t j = 0; j < half; ++j) {
    out[j] = in[2 * j] * cosSin[j] - in[2 * j + 1] * cosSin[half + j];
    out[half + j] = in[2 * j + 1] * cosSin[j] + in[2 * j] * cosSin[half + j];
  }
}

Doubles withBias(Doubles rows, const Doubles& bias) {
  for (size_t i = 0; i < rows.size(); ++i) rows[i] += bias[i % bias.size()];
  return rows;
}

}  // namespace

LONGCAT_TEST(mla_project_backward) {
  for (const Sizes& s : {Sizes{1, 1, 1, 1, 2, 1, 1}, Sizes{3, 5, 2, 3, 2, 7, 4}, Sizes{4, 18, 3, 4, 6, 9, 17}}) {
    const Case c(t, s);
    Doubles x = doubles(t.floats(c.x)), qA = doubles(t.floats(c.qA)), qABias = doubles(t.floats(c.qABias)), qANorm = doubles(t.floats(c.qANorm)),
            qB = doubles(t.floats(c.qB)), kvA = doubles(t.floats(c.kvA)), kvABias = doubles(t.floats(c.kvABias)), kvANorm = doubles(t.floats(c.kvANorm));
    const Doubles turns = doubles(t.floats(c.cosSin)), dQ = doubles(t.floats(c.dQ)), dLatents = doubles(t.floats(c.dLatents));
    const auto loss = [&] {
      Doubles q = product(norm(withBias(product(x, qA, static_cast<size_t>(s.hidden)), qABias), qANorm, kEps), qB, static_cast<size_t>(s.qRank));
      for (double& value : q) value *= kQScale;
      const Doubles kv = withBias(product(x, kvA, static_cast<size_t>(s.hidden)), kvABias);
      Doubles latents(kv.size());
      for (int64_t r = 0; r < s.T; ++r) {
        const double* turn = turns.data() + r * s.rope;
        for (int64_t h = 0; h < s.heads; ++h) {
          double* part = q.data() + (r * s.heads + h) * (s.nope + s.rope) + s.nope;
          const Doubles pairs(part, part + s.rope);
          rotate(pairs.data(), turn, s.rope, part);
        }
        const double* row = kv.data() + r * s.width();
        const Doubles normed = norm(Doubles(row, row + s.kvRank), kvANorm, kEps, kKvScale);
        std::copy(normed.begin(), normed.end(), latents.begin() + r * s.width());
        rotate(row + s.kvRank, turn, s.rope, latents.data() + r * s.width() + s.kvRank);
      }
      return dot(q, dQ) + dot(latents, dLatents);
    };
    const auto check = [&](const char* what, const Tensor& got, const std::vector<float>& want) { t.expectClose(what, t.floats(got), want, 1e-5); };
    const std::vector<float> wantX = differences(x, loss), wantQA = differences(qA, loss), wantQABias = differences(qABias, loss),
                             wantQANorm = differences(qANorm, loss), wantQB = differences(qB, loss), wantKvA = differences(kvA, loss),
                             wantKvABias = differences(kvABias, loss), wantKvANorm = differences(kvANorm, loss);
    for (Isa isa : t.isasOf("mla_project_backward")) {
      const Run run(t, c, isa, 2);
      check("dx", run.dX, wantX);
      check("dW_qa", run.dQA, wantQA);
      check("db_qa", run.dQABias, wantQABias);
      check("the query latent's norm", run.dQANorm, wantQANorm);
      check("dW_qb", run.dQB, wantQB);
      check("dW_kva", run.dKvA, wantKvA);
      check("db_kva", run.dKvABias, wantKvABias);
      check("the latent's norm", run.dKvANorm, wantKvANorm);
    }
  }
}

LONGCAT_TEST(mla_project_backward) {
  const Case c(t, {150, 70, 4, 16, 8, 40, 33});
  for (Isa isa : t.isasOf("mla_project_backward")) {
    std::vector<float> first;
    for (int threads : {1, 2, 3}) {
      const Run run(t, c, isa, threads);
      const std::vector<float> all = joined(t, {&run.dX, &run.dQA, &run.dQABias, &run.dQANorm, &run.dQB, &run.dKvA, &run.dKvABias, &run.dKvANorm});
      if (threads == 1) first = all;
      t.expectSameBits("all gradients on " + std::to_string(threads) + " threads", all, first);
    }
  }
}
