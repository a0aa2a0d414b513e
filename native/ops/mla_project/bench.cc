// mla_project with the attention of each model.
#include <string>

#include "ops/harness.h"

using namespace longcat;

LONGCAT_BENCH(mla_project) {
  struct Run { const char* model; int64_t rows, hidden, qRank, heads; };
  for (const Run r : {Run{"mini", 1, 256, 64, 4}, {"mini", 16, 256, 64, 4}, {"mini", 512, 256, 64, 4}, {"Lite", 1, 3072, 1536, 32},
                      {"Flash", 1, 6144, 1536, 64}, {"Flash", 16, 6144, 1536, 64}}) {
    const int64_t outputs = r.heads * 192;
    Tensor x = b.randomF32({r.rows, r.hidden}), qA = b.randomBf16({r.qRank, r.hidden}), qB = b.randomBf16({outputs, r.qRank});
    Tensor kvA = b.randomBf16({576, r.hidden}), qNorm = b.randomBf16({1, r.qRank}), kvNorm = b.randomBf16({1, 512});
    std::vector<int32_t> position(r.rows);
    for (int64_t i = 0; i < r.rows; ++i) position[i] = static_cast<int32_t>(i);
    Tensor cosSin = b.randomF32({r.rows, 64}), positions = b.i32({r.rows}, position), slots = b.i32({r.rows}), tables = b.i32({1, 16});
    for (int i = 0; i < 16; ++i) reinterpret_cast<int32_t*>(tables.data)[i] = i;
    Tensor qLatent = b.f32({r.rows, r.qRank}), kvLatent = b.f32({r.rows, 576}), q = b.f32({r.rows, r.heads, 192}), cache = b.f32({16, 32, 576});
    Tensor rows = b.i32({1}, {static_cast<int32_t>(r.rows)});
    const double weights = static_cast<double>((r.qRank + 576) * r.hidden + outputs * r.qRank);
    b.time(std::string(r.model) + " rows " + std::to_string(r.rows), "mla_project",
           args({&x, &qA, nullptr, nullptr, &qNorm, &qB, nullptr, &kvA, nullptr, nullptr, &kvNorm, &cosSin, &positions, &slots, &tables, &qLatent,
                 &kvLatent, &q, &cache, &rows},
                {double(r.heads), 128, 64, 1e-6, 2, 3.46}),
           2 * weights, 2 * weights * r.rows);
  }
}
