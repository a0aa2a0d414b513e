// What the benchmarks of backward operations share: float32 throughout, at the sizes of models that a processor trains.
#pragma once

#include <algorithm>

#include "ops/harness_bench.h"

namespace longcat::bench {

/// Of the models asked for, mini: the larger ones are nothing that a processor trains.
inline std::vector<const ModelShape*> trainedModels(const BenchContext& b) {
  std::vector<const ModelShape*> models = b.models();
  std::erase_if(models, [](const ModelShape* m) { return std::string(m->name) != "mini"; });
  return models;
}

inline Tensor f32(BenchContext& b, Shape shape) { return b.random(DType::f32, shape); }
inline Tensor room(BenchContext& b, Shape shape) { return b.empty(DType::f32, shape); }
inline Tensor live(BenchContext& b, int64_t T) { return b.i32({1}, {static_cast<int32_t>(T)}); }
inline double number(int64_t n) { return static_cast<double>(n); }

/// Bytes of so many float32 numbers.
inline double bytesOfFloats(double numbers) { return 4 * numbers; }

}  // namespace longcat::bench
