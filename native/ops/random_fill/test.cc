// random_fill against a plain reading of params.h in float64; range, mean, every element written, seeds, shapes.
#include <algorithm>
#include <cmath>
#include <set>
#include <string>

#include "ops/harness.h"
#include "runtime/float_formats.h"

using namespace longcat;

namespace {

/// splitmix64 (Steele, Lea, Flood): the output for a state.
uint64_t splitmix(uint64_t state) {
  uint64_t z = state + 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

/// Element i before it is stored. The product and the sum are exact in float64, whose rounding to float32 is then the only one each.
float reference(uint64_t seed, float low, float high, int64_t i) {
  const uint64_t hash = splitmix(splitmix(seed) + static_cast<uint64_t>(i) * 0x9e3779b97f4a7c15);
  const double u = static_cast<double>(hash / (uint64_t{1} << 40)) / (1 << 24);
  const float spread = static_cast<float>(static_cast<double>(high - low) * u);
  const float value = static_cast<float>(static_cast<double>(low) + static_cast<double>(spread));
  return value >= high ? std::nextafter(high, low) : value;
}

/// The nearest e4m3 number, found among all; the even code where two are as near.
float nearestE4m3(float value) {
  int best = 0;
  for (int code = 0; code < 256; ++code) {
    const double distance = std::abs(double{floatOfE4m3(static_cast<uint8_t>(code))} - value);
    const double least = std::abs(double{floatOfE4m3(static_cast<uint8_t>(best))} - value);
    if (distance < least || (distance == least && code % 2 == 0 && best % 2 == 1)) best = code;
  }
  return floatOfE4m3(static_cast<uint8_t>(best));
}

float stored(DType dtype, float value) {
  if (dtype == DType::bf16) return floatOfBf16(bf16OfFloat(value));
  return dtype == DType::f8e4m3 ? nearestE4m3(value) : value;
}

}  // namespace

LONGCAT_TEST(random_fill) {
  struct Range { float low, high; };
  for (DType dtype : {DType::f32, DType::bf16, DType::f8e4m3}) {
    for (const Range r : {Range{-1, 1}, {-448, 448}, {0, 0.02f}, {0.9f, 1.1f}, {-0.001f, 0.004f}}) {
      const std::string label = std::string(nameOf(dtype)) + " from " + std::to_string(r.low) + " to " + std::to_string(r.high);
      Tensor out = t.empty(dtype, {3, 5, 7, 311});
      std::vector<float> want(static_cast<size_t>(out.elements()));
      for (size_t i = 0; i < want.size(); ++i) want[i] = stored(dtype, reference(42, r.low, r.high, static_cast<int64_t>(i)));
      for (Isa isa : t.isas()) {
        for (int threads : {1, 3}) {
          t.run(isa, "random_fill", args({&out}, {42, r.low, r.high}), threads);
          const std::vector<float> got = t.floats(out);
          int64_t wrong = 0;  // by value: the reference does not tell −0 from 0
          for (size_t i = 0; i < got.size(); ++i) wrong += got[i] != want[i];
          t.expect(wrong == 0, label + ": " + std::to_string(wrong) + " numbers are not the reference's");
        }
      }
    }
  }
}

LONGCAT_TEST(random_fill) {
  Tensor out = t.f32({300, 1000}), narrow = t.empty(DType::f8e4m3, {300, 1000});
  for (Isa isa : t.isas()) {
    t.run(isa, "random_fill", args({&out}, {7, -0.5, 1.5}));
    const std::vector<float> values = t.floats(out);
    t.expect(std::all_of(values.begin(), values.end(), [](float v) { return v >= -0.5f && v < 1.5f; }), "every number is written, and within the range");
    double sum = 0, squares = 0;
    for (double v : values) sum += v, squares += (v - 0.5) * (v - 0.5);
    const double n = static_cast<double>(values.size());
    t.expect(std::abs(sum / n - 0.5) < 0.005, "the mean is the middle's, within 5 standard errors");
    t.expect(std::abs(squares / n - 1.0 / 3) < 0.003, "the variance is a uniform distribution's, within 5 standard errors");
    t.run(isa, "random_fill", args({&narrow}, {7, -448, 448}));
    const std::vector<float> codes = t.floats(narrow);
    t.expect(std::none_of(codes.begin(), codes.end(), [](float v) { return std::isnan(v); }), "no code is NaN");
    // What rounds to ±448 is within 16 of the end: a share of 16 / 448.
    const double share = static_cast<double>(std::count_if(codes.begin(), codes.end(), [](float v) { return std::abs(v) == 448; })) / n;
    t.expect(std::abs(share - 16.0 / 448) < 0.002, "codes are as frequent as in a quantised matrix");
  }
}

LONGCAT_TEST(random_fill) {
  Tensor a = t.f32({4, 33}), b = t.f32({4, 33}), one = t.f32({1}), none = t.f32({0, 5});
  const Isa isa = t.isas()[0];
  t.run(isa, "random_fill", args({&a}, {1, 0, 1}));
  t.run(isa, "random_fill", args({&b}, {2, 0, 1}));
  const std::vector<float> first = t.floats(a), second = t.floats(b);
  std::set<float> numbers(first.begin(), first.end());
  numbers.insert(second.begin(), second.end());
  t.expect(numbers.size() > 260, "another seed, other numbers");
  t.run(isa, "random_fill", args({&one}, {1, 0, 1}));
  t.expectSameBits("the first numbers do not depend on the shape", t.floats(one), {first[0]});
  t.run(isa, "random_fill", args({&b}, {2, 1.25, 1.25}));
  t.expectSameBits("an empty range fills with its number", t.floats(b), std::vector<float>(132, 1.25f));
  t.run(isa, "random_fill", args({&none}, {1, 0, 1}));

  Tensor whole = t.i32({4}), narrow = t.empty(DType::f8e4m3, {4}), view = t.columns(a, 3, 7);
  const auto refuses = [&](const char* words, const Tensor& out, double seed, double low, double high) {
    t.expectThrows(words, "INTERNAL", words, [&] { t.run(isa, "random_fill", args({&out}, {seed, low, high})); });
  };
  refuses("must be float32, bfloat16 or float8_e4m3", whole, 1, 0, 1);
  refuses("must be dense", view, 1, 0, 1);
  refuses("low must not be above high", a, 1, 1, 0);
  refuses("must be finite", a, 1, 0, INFINITY);
  refuses("ends at 448", narrow, 1, 0, 449);
  refuses("seed must be a whole number", a, 1.5, 0, 1);
}
