// swiglu_mlp of LongCat-Flash (6144, 12288), Lite (3072, 6144) and mini (256, 512). Floor: the three matrices' bytes.
#include "ops/bench_weights.h"

using namespace longcat;

LONGCAT_BENCH(swiglu_mlp) {
  struct Size { int64_t width, ffn; };
  for (DType dtype : {DType::bf16, DType::f8e4m3}) {
    for (const auto [width, ffn] : {Size{256, 512}, Size{3072, 6144}, Size{6144, 12288}}) {
      const bench::Weight gate = bench::weight(b, dtype, ffn, width), up = bench::weight(b, dtype, ffn, width), down = bench::weight(b, dtype, width, ffn);
      for (int32_t R : {1, 16, 256}) {
        if (R > 16 && width > 3072) continue;
        const Tensor x = b.randomF32({R, width}), hidden = b.f32({R, ffn}), out = b.f32({R, width}), rows = b.i32({1}, {R});
        b.time(bench::label(dtype, R, std::to_string(width) + " to " + std::to_string(ffn)), "swiglu_mlp",
               args({&x, &gate.data, gate.scales(), &up.data, up.scales(), &down.data, down.scales(), &hidden, &out, &rows}), 3 * gate.bytes(),
               6.0 * R * static_cast<double>(width * ffn));
      }
    }
  }
}
