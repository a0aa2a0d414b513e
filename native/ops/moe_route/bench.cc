// moe_route with the router of each model.
#include <string>

#include "ops/harness.h"

using namespace longcat;

LONGCAT_BENCH(moe_route) {
  struct Case { const char* model; int64_t rows, hidden, experts, all, k; };
  for (const Case c : {Case{"mini", 1, 256, 24, 36, 6}, {"mini", 16, 256, 24, 36, 6}, {"mini", 512, 256, 24, 36, 6},
                       {"Lite", 1, 3072, 256, 384, 12}, {"Flash", 1, 6144, 512, 768, 12}, {"Flash", 16, 6144, 512, 768, 12}}) {
    Tensor h = b.randomF32({c.rows, c.hidden}), classifier = b.randomBf16({c.all, c.hidden}), bias = b.randomF32({1, c.all}, 0, .01);
    Tensor scores = b.f32({c.rows, c.all}), ids = b.i32({c.rows, c.k}), weights = b.f32({c.rows, c.k}), identity = b.f32({c.rows});
    Tensor count = b.i32({c.rows}), start = b.i32({c.experts + 1}), planRow = b.i32({c.rows * c.k}), slot = b.i32({c.rows, c.k});
    Tensor rows = b.i32({1}, {static_cast<int32_t>(c.rows)});
    b.time(std::string(c.model) + " " + std::to_string(c.rows) + " x " + std::to_string(c.hidden) + " -> " + std::to_string(c.all), "moe_route",
           args({&h, &classifier, &bias, &scores, &ids, &weights, &identity, &count, &start, &planRow, &slot, &rows},
                {static_cast<double>(c.experts), 6}),
           2.0 * c.all * c.hidden, 2.0 * c.rows * c.all * c.hidden);
  }
}
