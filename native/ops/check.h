// What prepare() uses to check an operation's arguments. Each failure is Error("INTERNAL") naming operation and argument.
#pragma once

#include <initializer_list>
#include <string>

#include "ops/op.h"
#include "ops/registry.h"
#include "ops/weight.h"
#include "runtime/error.h"

namespace longcat {

constexpr int64_t kAnySize = -1;  // in a shape: whatever the tensor has

class ArgCheck {
 public:
  ArgCheck(const OpSpec& spec, const OpArgs& args) : spec_(spec), args_(args) {
    checkArity(spec, args);
    for (int i = args.numTensors; i-- > 0;) {
      if (args.tensor[i] && tensorArg(spec, i).activation) activation_ = args.tensor[i]->dtype;
    }
    const bool known = activation_ == DType::f32 || (args.onGpu && activation_ == DType::bf16);
    if (!known) throw Error("INTERNAL", std::string(spec.name) + ": activations cannot be " + nameOf(activation_) + " on this device");
  }

  /// What all of the operation's activations are: float32, or bfloat16 on a GPU.
  DType activation() const { return activation_; }

  bool has(int i) const { return args_.tensor[i] != nullptr; }
  bool isDType(int i, DType dtype) const { return has(i) && args_.tensor[i]->dtype == dtype; }
  int64_t size(int i, int dimension) const {
    requireArg(i, dimension < args_.tensor[i]->rank, "has too few dimensions");
    return args_.tensor[i]->shape[dimension];
  }

  /// The numbers of a contiguous tensor of this dtype and shape; null where an optional one is absent.
  template <class T>
  T* dense(int i, DType dtype, std::initializer_list<int64_t> shape) const {
    if (!has(i)) return nullptr;
    const Tensor& t = *args_.tensor[i];
    bool ok = t.dtype == dtype && t.rank == static_cast<int>(shape.size()) && t.contiguous();
    int d = 0;
    for (int64_t n : shape) {
      ok = ok && (n == kAnySize || t.shape[d] == n);
      ++d;
    }
    if (!ok) throw Error("INTERNAL", nameOfArg(i) + " must be " + describe(dtype, shape) + ", is " + describe(t));
    return static_cast<T*>(static_cast<void*>(t.data));
  }

  /// Dense activations of this shape; null where absent.
  Activations activations(int i, std::initializer_list<int64_t> shape) const { return {dense<void>(i, activation_, shape)}; }

  /// The rows of a matrix [rows, columns] of that dtype, which may be a column view; `stride` gets the elements from row to row. Null
  /// where absent.
  Activations rowsOf(int i, DType dtype, int64_t rows, int64_t columns, int64_t* stride) const {
    *stride = 0;
    if (!has(i)) return {};
    const Tensor& t = *args_.tensor[i];
    const bool ok = t.dtype == dtype && t.rank == 2 && !t.parts && t.data && t.rowStride >= t.shape[1] &&
                    (rows == kAnySize || t.shape[0] == rows) && (columns == kAnySize || t.shape[1] == columns);
    if (!ok) throw Error("INTERNAL", nameOfArg(i) + " must be rows of " + nameOf(dtype) + " " + list({rows, columns}) + ", is " + describe(t));
    *stride = t.rowStride;
    return {t.data};
  }

  /// Dense activations of whatever shape, `rows` of them; `stride` gets the numbers of each. Null where absent.
  Activations wholeRows(int i, int64_t rows, int64_t* stride) const {
    *stride = 0;
    if (!has(i)) return {};
    const Tensor& t = *args_.tensor[i];
    requireArg(i, t.dtype == activation_ && t.contiguous() && t.rank > 0 && t.shape[0] == rows, "must be as many rows as there are results, of what activations are");
    *stride = rows > 0 ? t.elements() / rows : 0;
    return {t.data};
  }

  /// `i`'s dtype where it may be float32 or the activations'; it must be one of the two.
  DType floatOrActivation(int i) const {
    const DType dtype = args_.tensor[i]->dtype;
    requireArg(i, dtype == DType::f32 || dtype == activation_, "must be float32 or what the activations are");
    return dtype;
  }

  /// A weight matrix [rows, columns] with its FP8 scales (scaleIndex < 0: it may not be FP8).
  WeightView weight(int i, int scaleIndex, int64_t rows, int64_t columns) const {
    if (!has(i)) return {};
    const WeightView w = weightView(*args_.tensor[i], scaleIndex < 0 ? nullptr : args_.tensor[scaleIndex], tensorArg(spec_, i).name);
    const bool sized = (rows == kAnySize || w.rows == rows) && (columns == kAnySize || w.columns == columns);
    if (!sized || (scaleIndex < 0 && w.dtype == DType::f8e4m3))
      throw Error("INTERNAL", nameOfArg(i) + " must be " + (scaleIndex < 0 ? "float32 or bfloat16 " : "a weight ") + list({rows, columns}) +
                                  ", is " + describe(*args_.tensor[i]));
    return w;
  }

  /// A stack of weight matrices [count, rows, columns] with its FP8 scales (scaleIndex < 0: it may not be FP8).
  WeightStack stack(int i, int scaleIndex, int64_t count, int64_t rows, int64_t columns) const {
    const WeightStack w = weightStack(*args_.tensor[i], scaleIndex < 0 ? nullptr : args_.tensor[scaleIndex], tensorArg(spec_, i).name);
    const bool sized = (count == kAnySize || w.count == count) && (rows == kAnySize || w.rows == rows) && (columns == kAnySize || w.columns == columns);
    if (!sized) throw Error("INTERNAL", nameOfArg(i) + " must be a stack " + list({count, rows, columns}) + ", is " + describe(*args_.tensor[i]));
    return w;
  }

  double scalar(int i) const { return args_.scalar[i]; }
  /// A whole number within [low, high].
  int64_t integer(int i, int64_t low, int64_t high) const {
    const double v = args_.scalar[i];
    if (!(v >= static_cast<double>(low) && v <= static_cast<double>(high)) || v != static_cast<double>(static_cast<int64_t>(v)))
      throw Error("INTERNAL", std::string(spec_.name) + ": " + spec_.scalars[i] + " must be a whole number from " + std::to_string(low) +
                                  " to " + std::to_string(high) + ", is " + std::to_string(v));
    return static_cast<int64_t>(v);
  }

  void requireArg(int i, bool ok, const char* what) const {
    if (!ok) throw Error("INTERNAL", nameOfArg(i) + " " + what + ": " + describe(*args_.tensor[i]));
  }

 private:
  std::string nameOfArg(int i) const { return std::string(spec_.name) + ": " + tensorArg(spec_, i).name; }
  template <class Shape>
  static std::string list(const Shape& shape) {
    std::string s = "[";
    for (int64_t n : shape) s += (s.size() > 1 ? ", " : "") + (n == kAnySize ? std::string("any") : std::to_string(n));
    return s + "]";
  }
  static std::string list(std::initializer_list<int64_t> shape) { return list<std::initializer_list<int64_t>>(shape); }
  static std::string describe(DType dtype, std::initializer_list<int64_t> shape) {
    return std::string("contiguous ") + nameOf(dtype) + " " + list(shape);
  }
  static std::string describe(const Tensor& t) {
    std::string s = std::string(nameOf(t.dtype)) + " [";
    for (int i = 0; i < t.rank; ++i) s += (i ? ", " : "") + std::to_string(t.shape[i]);
    return s + "]" + (t.parts ? " in parts" : t.contiguous() ? "" : " not contiguous");
  }

  const OpSpec& spec_;
  const OpArgs& args_;
  DType activation_ = DType::f32;
};

}  // namespace longcat
