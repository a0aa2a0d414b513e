// Weights for benchmarks: bytes that are cheap to make and stand for ordinary numbers in every dtype.
#pragma once

#include <cstring>
#include <string>

#include "ops/harness.h"

namespace longcat::bench {

struct Weight {
  Tensor data, scale;
  bool fp8 = false;
  const Tensor* scales() const { return fp8 ? &scale : nullptr; }
  double bytes() const { return static_cast<double>(data.elements()) * static_cast<double>(bytesOf(data.dtype)); }
};

inline Weight weight(OpContext& b, DType dtype, int64_t rows, int64_t columns) {
  Weight w;
  w.data = b.empty(dtype, {rows, columns});
  w.fp8 = dtype == DType::f8e4m3;
  const size_t bytes = static_cast<size_t>(w.bytes());
  for (size_t i = 0; i < bytes; ++i) w.data.data[i] = static_cast<std::byte>(0x38 + (i * 2654435761u >> 29));  // 1 to 2 in e4m3, around 1e-4 in bf16 and f32
  if (w.fp8) {
    const int64_t blockRows = fp8Blocks(rows), blockColumns = fp8Blocks(columns);
    w.scale = b.f32({blockRows, blockColumns}, std::vector<float>(static_cast<size_t>(blockRows * blockColumns), 1e-3f));
  }
  return w;
}

inline std::string label(DType dtype, int64_t rows, const std::string& shape) { return std::string(nameOf(dtype)) + " " + shape + ", " + std::to_string(rows) + " rows"; }

}  // namespace longcat::bench
