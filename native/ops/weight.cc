// Checked views of weight tensors (weight.h).
#include "ops/weight.h"

#include <string>

#include "runtime/error.h"

namespace longcat {
namespace {

std::string shapeOf(const Tensor& t) {
  std::string s = std::string(nameOf(t.dtype)) + " [";
  for (int i = 0; i < t.rank; ++i) s += (i ? ", " : "") + std::to_string(t.shape[i]);
  return s + "]" + (t.parts ? " in parts" : t.contiguous() ? "" : " not contiguous");
}

void requireWeightDtype(const Tensor& w, const Tensor* scale, const std::string& name) {
  const bool fp8 = w.dtype == DType::f8e4m3;
  require(fp8 || w.dtype == DType::f32 || w.dtype == DType::bf16, name + " must be float32, bfloat16 or float8_e4m3, is " + shapeOf(w));
  require(!fp8 || scale, name + " is float8_e4m3 and needs its block scales");
  require(fp8 || !scale, name + " is " + nameOf(w.dtype) + " and takes no block scales");
}

/// The scales of one matrix or a stack: f32, the last two dimensions fp8Blocks(rows) and fp8Blocks(columns).
void requireScaleShape(const Tensor& scale, int64_t rows, int64_t columns, const std::string& name) {
  const int64_t blockRows = fp8Blocks(rows), blockColumns = fp8Blocks(columns);
  const bool ok = scale.dtype == DType::f32 && scale.rank >= 2 && scale.shape[scale.rank - 2] == blockRows &&
                  scale.shape[scale.rank - 1] == blockColumns;
  require(ok, "block scales of " + name + " must be float32 [" + std::to_string(blockRows) + ", " + std::to_string(blockColumns) + "], are " +
                  shapeOf(scale));
}

}  // namespace

WeightView weightView(const Tensor& w, const Tensor* scale, const char* name) {
  require((w.rank == 1 || w.rank == 2) && w.contiguous() && w.data, std::string(name) + " must be a contiguous matrix, is " + shapeOf(w));
  requireWeightDtype(w, scale, name);
  WeightView view;
  view.rows = w.rank == 2 ? w.shape[0] : 1;
  view.columns = w.shape[w.rank - 1];
  view.data = w.data;
  view.dtype = w.dtype;
  if (scale) {
    requireScaleShape(*scale, view.rows, view.columns, name);
    require(scale->rank == 2 && scale->contiguous() && scale->data, std::string("block scales of ") + name + " must be contiguous, are " + shapeOf(*scale));
    view.scale = reinterpret_cast<const float*>(scale->data);
  }
  return view;
}

WeightStack weightStack(const Tensor& w, const Tensor* scale, const char* name) {
  const std::string of(name);
  require(w.rank == 3 && w.parts && static_cast<int64_t>(w.parts->size()) == w.shape[0], of + " must be a stack of matrices in parts, is " + shapeOf(w));
  requireWeightDtype(w, scale, of);
  WeightStack stack;
  stack.count = w.shape[0];
  stack.rows = w.shape[1];
  stack.columns = w.shape[2];
  stack.data = w.data ? reinterpret_cast<const std::byte* const*>(w.data) : w.parts->data();
  stack.dtype = w.dtype;
  if (scale) {
    requireScaleShape(*scale, stack.rows, stack.columns, of);
    require(scale->rank == 3 && scale->parts && static_cast<int64_t>(scale->parts->size()) == stack.count,
            "block scales of " + of + " must be a stack of as many parts, are " + shapeOf(*scale));
    stack.scale = scale->data ? reinterpret_cast<const std::byte* const*>(scale->data) : scale->parts->data();
  }
  return stack;
}

}  // namespace longcat
