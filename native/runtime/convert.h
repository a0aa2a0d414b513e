// Weights from one dtype to another, at load time.
#pragma once

#include <memory>

#include "runtime/tensor.h"
#include "runtime/thread_pool.h"

namespace longcat {

/// Throws INTERNAL unless `from` can be converted to `dtype` (f32 or bf16). `scale` belongs to f8e4m3 and only to it.
void requireConvertible(const Tensor& from, const Tensor* scale, DType dtype);

/// Makes a stack of a dense tensor: a part for each index of its first dimension.
void splitParts(Tensor& tensor);

/// to = from × scale, rounded once to nearest, ties to even. Scales are per block of kFp8Block × kFp8Block (docs/numerics.md, 7).
void convertInto(const Tensor& from, const Tensor* scale, const Tensor& to, ThreadPool& pool);

}  // namespace longcat
