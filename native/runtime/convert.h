// Weights from one dtype to another, at load time.
#pragma once

#include <atomic>
#include <memory>

#include "runtime/tensor.h"
#include "runtime/thread_pool.h"

namespace longcat {

/// The tensor that a conversion of `from` fills: same shape, `dtype` (f32 or bf16), zeroed memory; a stack stays a stack.
/// `scale` belongs to f8e4m3 and only to it. Throws INTERNAL for what cannot be converted.
Tensor convertedLike(const Tensor& from, const Tensor* scale, DType dtype, std::shared_ptr<std::atomic<int64_t>> counter);

/// to = from × scale, rounded once to nearest, ties to even. Scales are per block of kFp8Block × kFp8Block (docs/numerics.md, 7).
void convertInto(const Tensor& from, const Tensor* scale, const Tensor& to, ThreadPool& pool);

}  // namespace longcat
