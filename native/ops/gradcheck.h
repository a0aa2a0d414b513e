// Gradients by central differences in float64, for the tests of backward operations.
//
// A test writes the forward in float64 as a loss over vectors of doubles, and compares the operation's float32 gradient with
//   differences(x, loss)     where `loss` reads x
// The difference's own error is some 1e-9 of the loss (step 1e-5: step² from what it leaves out, 1e-16 / step from rounding), so that a
// tolerance says what float32 sums lose.
#pragma once

#include <functional>
#include <vector>

#include "ops/harness.h"

namespace longcat::gradcheck {

using Doubles = std::vector<double>;

inline Doubles doubles(const std::vector<float>& values) { return {values.begin(), values.end()}; }

/// ∂loss / ∂x[i] of every i. x is as it was afterwards.
inline std::vector<float> differences(Doubles& x, const std::function<double()>& loss) {
  constexpr double kStep = 1e-5;
  std::vector<float> gradient;
  for (double& value : x) {
    const double at = value;
    value = at + kStep;
    const double above = loss();
    value = at - kStep;
    const double below = loss();
    value = at;
    gradient.push_back(static_cast<float>((above - below) / (2 * kStep)));
  }
  return gradient;
}

/// Σ a·b: a loss whose gradient in `a` is `b`.
inline double dot(const Doubles& a, const Doubles& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

/// out[r] = W x[r] for rows of `columns` numbers.
inline Doubles product(const Doubles& x, const Doubles& w, size_t columns) {
  const size_t outputs = w.size() / columns, rows = x.size() / columns;
  Doubles out(rows * outputs);
  for (size_t r = 0; r < rows; ++r) {
    for (size_t o = 0; o < outputs; ++o) {
      for (size_t k = 0; k < columns; ++k) out[r * outputs + o] += x[r * columns + k] * w[o * columns + k];
    }
  }
  return out;
}

/// Each row of x, RMS-normed, times `weight`, times `factor`.
inline Doubles norm(const Doubles& x, const Doubles& weight, double eps, double factor = 1) {
  const size_t width = weight.size();
  Doubles out(x.size());
  for (size_t r = 0; r < x.size(); r += width) {
    double squares = 0;
    for (size_t k = 0; k < width; ++k) squares += x[r + k] * x[r + k];
    const double scale = factor / std::sqrt(squares / static_cast<double>(width) + eps);
    for (size_t k = 0; k < width; ++k) out[r + k] = x[r + k] * scale * weight[k];
  }
  return out;
}

/// Numbers of `a` plus those of `b`: what a gradient that is added to should be.
inline std::vector<float> plus(std::vector<float> a, const std::vector<float>& b) {
  for (size_t i = 0; i < a.size(); ++i) a[i] += b[i];
  return a;
}

/// The numbers of several tensors, one after another: to compare the bits of all gradients at once.
inline std::vector<float> joined(OpContext& t, std::initializer_list<const Tensor*> tensors) {
  std::vector<float> all;
  for (const Tensor* tensor : tensors) {
    const std::vector<float> numbers = t.floats(*tensor);
    all.insert(all.end(), numbers.begin(), numbers.end());
  }
  return all;
}

}  // namespace longcat::gradcheck
