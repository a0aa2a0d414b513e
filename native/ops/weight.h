// A weight matrix as an operation sees it: stored numbers of any weight dtype, and the block scales of FP8.
#pragma once

#include <cstdint>

#include "ops/activation.h"
#include "runtime/tensor.h"

namespace longcat {

/// W [rows, columns], row-major and dense. dtype f32, bf16 or f8e4m3. For f8e4m3 the value is stored × scale[r/kFp8Block][c/kFp8Block],
/// with scale [fp8Blocks(rows), fp8Blocks(columns)] f32 (docs/model.md, 5.2).
struct WeightView {
  const void* data = nullptr;
  const float* scale = nullptr;
  int64_t rows = 0, columns = 0;
  DType dtype = DType::f32;
};

/// A stack of matrices of one shape (the experts'): part e begins at data[e], its scales at scale[e] (null unless FP8). On a GPU the
/// lists of addresses lie in its memory.
struct WeightStack {
  const std::byte* const* data = nullptr;
  const std::byte* const* scale = nullptr;
  int64_t count = 0, rows = 0, columns = 0;
  DType dtype = DType::f32;
  WeightView at(int64_t e) const {
    return {data[e], scale ? reinterpret_cast<const float*>(scale[e]) : nullptr, rows, columns, dtype};
  }
};

/// A checked view of `w` (contiguous, 2-D, or 1-D as a single row) with `scale` (null unless FP8). Throws Error("INTERNAL") naming `name`.
WeightView weightView(const Tensor& w, const Tensor* scale, const char* name);
/// The same for a stack [count, rows, columns] made of parts.
WeightStack weightStack(const Tensor& w, const Tensor* scale, const char* name);

}  // namespace longcat
