// Memory on the heap, as buffers of tensors.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>

#include "runtime/error.h"
#include "runtime/tensor.h"

namespace longcat {

/// Zeroed memory, aligned to 64 bytes; pages that nobody touches cost nothing. Counted in `counter` while it lives.
/// Throws Error("OUT_OF_MEMORY") with what was asked and what is there; `purpose` names what it is for.
std::shared_ptr<Buffer> allocateBuffer(size_t bytes, const char* purpose, std::shared_ptr<std::atomic<int64_t>> counter = nullptr);

/// Error("OUT_OF_MEMORY") with what was asked for, what for, and what is there.
Error outOfMemoryError(size_t bytes, const char* purpose, int64_t there);

/// A dense tensor that has no memory yet. Throws INTERNAL for an impossible shape, OUT_OF_MEMORY for one of 2^63 bytes.
Tensor denseTensor(DType dtype, const int64_t* shape, int rank);
/// A dense tensor over fresh zeroed memory. Throws INTERNAL for an impossible shape.
Tensor allocateTensor(DType dtype, const int64_t* shape, int rank, std::shared_ptr<std::atomic<int64_t>> counter = nullptr);

/// Fills the tensor's own elements, not what lies between its rows, with `byte`. Stacks are left alone.
void fillBytes(const Tensor& tensor, int byte);

/// Bytes from the first element to the end of the last.
size_t spanBytes(const Tensor& tensor);
bool overlap(const Tensor& a, const Tensor& b);

}  // namespace longcat
