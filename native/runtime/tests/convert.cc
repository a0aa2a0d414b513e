// Conversion of weights: the host against the formats' own definitions, a GPU to the bits of the host.
#include <cmath>
#include <cstring>

#include "ops/harness.h"
#include "runtime/convert.h"
#include "runtime/float_formats.h"
#include "runtime/memory.h"
#ifdef LONGCAT_HAS_CUDA
#include "ops/harness_cuda.h"
#endif

using namespace longcat;

namespace {

Tensor converted(TestContext& t, Isa isa, const Tensor& from, const Tensor* scale, DType dtype) {
  requireConvertible(from, scale, dtype);
  const Tensor to = allocateTensor(dtype, from.shape, from.rank);
  fillBytes(to, 0xff);
#ifdef LONGCAT_HAS_CUDA
  if (isGpu(isa)) {
    convertOnGpu(from, scale, to);
    return to;
  }
#endif
  if (isGpu(isa)) throw Error("INTERNAL", "this build has no CUDA");
  convertInto(from, scale, to, t.pool());
  return to;
}

void expectConverted(TestContext& t, const std::string& what, const Tensor& from, const Tensor* scale) {
  std::vector<float> want = t.floats(from, scale);
  for (DType dtype : {DType::f32, DType::bf16}) {
    const Tensor host = converted(t, Isa::plain, from, scale, dtype);
    if (dtype == DType::bf16) {
      for (float& value : want) value = floatOfBf16(bf16OfFloat(value));
    }
    const std::vector<float> got = t.floats(host);
    bool same = true;
    for (size_t i = 0; i < want.size(); ++i) same = same && (got[i] == want[i] || (std::isnan(got[i]) && std::isnan(want[i])));
    t.expect(same, what + " to " + nameOf(dtype) + " on the host");
    for (Isa isa : t.isas()) {
      if (!isGpu(isa)) continue;
      const Tensor there = converted(t, isa, from, scale, dtype);
      t.expectSameBits(what + " to " + nameOf(dtype) + " on a GPU as on the host", there.data, host.data, spanBytes(host));
    }
  }
}

}  // namespace

LONGCAT_TEST(convert) {
  struct Size { int64_t rows, columns; };
  for (const auto [rows, columns] : {Size{1, 1}, Size{3, 7}, Size{40, 96}, Size{129, 130}, Size{128, 256}, Size{300, 1000}, Size{5, 3000}}) {
    const std::string shape = " [" + std::to_string(rows) + ", " + std::to_string(columns) + "]";
    expectConverted(t, "float32" + shape, t.randomF32({rows, columns}, -3, 3), nullptr);
    expectConverted(t, "bfloat16" + shape, t.randomBf16({rows, columns}, -3, 3), nullptr);
    const Fp8Weight quantised = t.randomFp8(rows, columns, -3, 3);
    expectConverted(t, "float8" + shape, quantised.data, &quantised.scale);
  }
}

// Every code, infinities, NaNs with and without a payload, subnormal numbers, ties.
LONGCAT_TEST(convert) {
  const Tensor codes = t.empty(DType::f8e4m3, {256, 1}), scale = t.f32({2, 1}, {0.3f, 1e38f});
  for (int c = 0; c < 256; ++c) codes.data[c] = static_cast<std::byte>(c);
  expectConverted(t, "every e4m3 code", codes, &scale);
  const std::vector<uint32_t> bits = {0x00000000, 0x80000000, 0x7f800000, 0xff800000, 0x7fc00000, 0xffc00001, 0x7f800001, 0xff812345, 0x00000001,
                                      0x80007fff, 0x00008000, 0x3f808000, 0x3f818000, 0x3f808001, 0x7f7fffff, 0x7f7f8000, 0xff7f7fff};
  const Tensor strange = t.f32({1, static_cast<int64_t>(bits.size())});
  std::memcpy(strange.data, bits.data(), bits.size() * sizeof(uint32_t));
  expectConverted(t, "strange numbers", strange, nullptr);
}
