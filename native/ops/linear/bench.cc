// linear at projections of LongCat-Flash (q_b), Lite and mini. Floor: the weights' bytes at few rows, fused multiply-adds at many.
#include "ops/bench_weights.h"

using namespace longcat;

LONGCAT_BENCH(linear) {
  struct Size { int64_t outputs, inputs; };
  for (DType dtype : {DType::bf16, DType::f8e4m3, DType::f32}) {
    for (const auto [outputs, inputs] : {Size{2048, 256}, Size{3072, 3072}, Size{12288, 1536}, Size{6144, 8192}}) {
      const bench::Weight w = bench::weight(b, dtype, outputs, inputs);
      for (int32_t R : {1, 4, 16, 256}) {
        if (R > 16 && outputs * inputs > 20'000'000) continue;
        const Tensor x = b.randomF32({R, inputs}), out = b.f32({R, outputs}), rows = b.i32({1}, {R});
        b.time(bench::label(dtype, R, "[" + std::to_string(outputs) + ", " + std::to_string(inputs) + "]"), "linear",
               args({&x, nullptr, &w.data, w.scales(), nullptr, &out, &rows}), w.bytes(), 2.0 * R * static_cast<double>(outputs * inputs));
      }
    }
  }
}
