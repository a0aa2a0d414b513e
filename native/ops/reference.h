// Readable float64 mathematics and weights of every dtype, for the tests of several rooms.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "ops/harness.h"

namespace longcat::reference {

/// A weight as operations take it, with the numbers that it stands for.
struct Weight {
  Tensor data, scale;
  bool fp8 = false;
  std::vector<float> values;  // [rows, columns]
  const Tensor* scales() const { return fp8 ? &scale : nullptr; }
};

inline const DType kWeightDtypes[] = {DType::f32, DType::bf16, DType::f8e4m3};

/// A random matrix of that dtype. Sizes that a real layer has would grow its products: entries within ±1/√columns keep them near 1.
inline Weight randomWeight(OpContext& t, DType dtype, int64_t rows, int64_t columns) {
  const float size = 1.0f / std::sqrt(static_cast<float>(columns));
  Weight w;
  if (dtype == DType::f8e4m3) {
    const Fp8Weight quantised = t.randomFp8(rows, columns, -size, size);
    w = {quantised.data, quantised.scale, true, t.floats(quantised.data, &quantised.scale)};
  } else {
    w.data = dtype == DType::bf16 ? t.randomBf16({rows, columns}, -size, size) : t.randomF32({rows, columns}, -size, size);
    w.values = t.floats(w.data);
  }
  return w;
}

/// The stacks (numbers, scales) of several weights of one shape.
struct Stack {
  Tensor data, scale;
  bool fp8 = false;
  std::vector<Weight> weights;
  const Tensor* scales() const { return fp8 ? &scale : nullptr; }
};

inline Stack randomStack(OpContext& t, DType dtype, int64_t count, int64_t rows, int64_t columns) {
  Stack s;
  std::vector<Tensor> data, scale;
  for (int64_t e = 0; e < count; ++e) {
    s.weights.push_back(randomWeight(t, dtype, rows, columns));
    data.push_back(s.weights.back().data);
    scale.push_back(s.weights.back().scale);
  }
  s.data = t.stack(data);
  s.fp8 = dtype == DType::f8e4m3;
  if (s.fp8) s.scale = t.stack(scale);
  return s;
}

/// W x for one row x of `columns` numbers.
template <class X>
std::vector<double> multiply(const std::vector<float>& w, const X* x, int64_t columns) {
  std::vector<double> y(w.size() / static_cast<size_t>(columns));
  for (size_t o = 0; o < y.size(); ++o) {
    for (int64_t k = 0; k < columns; ++k) y[o] += static_cast<double>(w[o * static_cast<size_t>(columns) + static_cast<size_t>(k)]) * static_cast<double>(x[k]);
  }
  return y;
}

inline double silu(double z) { return z / (1 + std::exp(-z)); }

/// Down(silu(Gate x) · Up x) for one row.
inline std::vector<double> swiglu(const std::vector<float>& gate, const std::vector<float>& up, const std::vector<float>& down, const float* x, int64_t width) {
  std::vector<double> hidden = multiply(gate, x, width);
  const std::vector<double> u = multiply(up, x, width);
  for (size_t i = 0; i < hidden.size(); ++i) hidden[i] = silu(hidden[i]) * u[i];
  return multiply(down, hidden.data(), static_cast<int64_t>(hidden.size()));
}

inline std::string describe(DType dtype, int64_t rows, int64_t outputs, int64_t inputs) {
  return std::string(nameOf(dtype)) + " [" + std::to_string(outputs) + ", " + std::to_string(inputs) + "], " + std::to_string(rows) + " rows";
}

}  // namespace longcat::reference
