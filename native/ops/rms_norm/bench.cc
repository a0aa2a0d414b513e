// rms_norm with its add at the family's widths. Floor: two rows read, two written.
#include "ops/harness.h"

using namespace longcat;

LONGCAT_BENCH(rms_norm) {
  for (int64_t width : {256, 3072, 6144}) {
    const Tensor weight = b.randomBf16({1, width});
    for (int32_t R : {1, 16, 256}) {
      const Tensor x = b.randomF32({R, width}), add = b.randomF32({R, width}, -1e-3f, 1e-3f), out = b.f32({R, width}), rows = b.i32({1}, {R});
      b.time(std::to_string(R) + " x " + std::to_string(width), "rms_norm", args({&x, &add, nullptr, &weight, &x, &out, &rows}, {1e-5}),
             16.0 * R * width, 5.0 * R * width);
    }
  }
}
