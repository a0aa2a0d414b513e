// Reading memory and multiplying as fast as an instruction set allows, and nothing else.
#include "cpu/measure.h"

#include "cpu/simd.h"

namespace longcat::LONGCAT_ISA {

/// Reads every number once; the result is of no use but to keep the compiler from leaving it out.
float readAll(const float* data, int64_t count) {
  constexpr int kChains = 8;
  Vec chain[kChains];
  for (Vec& c : chain) c = zero();
  constexpr int64_t kStep = kChains * kLanes;
  for (int64_t i = 0; i + kStep <= count; i += kStep) {
    for (int c = 0; c < kChains; ++c) chain[c] = add(chain[c], load(data + i + c * kLanes));
  }
  for (int c = 1; c < kChains; ++c) chain[0] = add(chain[0], chain[c]);
  float lanes[kLanes];
  store(lanes, chain[0]);
  float sum = 0;
  for (float lane : lanes) sum += lane;
  return sum;
}

/// Runs `rounds` of independent multiply-adds; the floating-point operations that were done.
double multiplyAdd(int64_t rounds, float* sink) {
  constexpr int kChains = 12;  // more than latency × units of any processor here
  Vec chain[kChains];
  for (int c = 0; c < kChains; ++c) chain[c] = set1(static_cast<float>(c));
  const Vec factor = set1(0.999f), addend = set1(0.001f);
  for (int64_t r = 0; r < rounds; ++r) {
    for (Vec& c : chain) c = fma(c, factor, addend);
  }
  for (int c = 1; c < kChains; ++c) chain[0] = add(chain[0], chain[c]);
  float lanes[kLanes];
  store(lanes, chain[0]);
  *sink = lanes[0];
  return static_cast<double>(rounds) * kChains * kLanes * 2;
}

}  // namespace longcat::LONGCAT_ISA
