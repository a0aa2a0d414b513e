// A weight that is trained, as a backward operation sees it: its numbers, and the gradient that the operation adds to.
// Gradients are added to, not written, so that several batches may make one step.
#pragma once

#include "ops/check.h"
#include "ops/weight.h"

namespace longcat {

/// weight [rows, columns] f32, and its gradient of the same shape. Both null where an optional one is absent.
struct Trainable {
  WeightView weight;
  float* gradient = nullptr;
  const float* values() const { return static_cast<const float*>(weight.data); }
};

/// Stacks of matrices of one shape (the experts'), and their gradients.
struct TrainableStack {
  WeightStack weight, gradient;
  Trainable at(int64_t e) const { return {weight.at(e), const_cast<float*>(reinterpret_cast<const float*>(gradient.data[e]))}; }
};

/// Arguments `weight` and `gradient`, checked; rows or columns may be kAnySize.
inline Trainable trainable(const ArgCheck& check, int weight, int gradient, int64_t rows, int64_t columns) {
  Trainable t;
  if (!check.has(weight)) return t;
  check.requireArg(weight, check.isDType(weight, DType::f32), "must be float32 to be trained");
  t.weight = check.weight(weight, -1, rows, columns);
  check.requireArg(weight, check.has(gradient), "has no gradient to go with it");
  check.requireArg(gradient, check.isDType(gradient, DType::f32), "must be float32");
  t.gradient = static_cast<float*>(const_cast<void*>(check.weight(gradient, -1, t.weight.rows, t.weight.columns).data));
  return t;
}

/// The same for stacks [count, rows, columns].
inline TrainableStack trainableStack(const ArgCheck& check, int weight, int gradient, int64_t count, int64_t rows, int64_t columns) {
  check.requireArg(weight, check.isDType(weight, DType::f32), "must be float32 to be trained");
  check.requireArg(gradient, check.isDType(gradient, DType::f32), "must be float32");
  TrainableStack t;
  t.weight = check.stack(weight, -1, count, rows, columns);
  t.gradient = check.stack(gradient, -1, t.weight.count, t.weight.rows, t.weight.columns);
  return t;
}

}  // namespace longcat
