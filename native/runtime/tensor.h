// A tensor: where some numbers are, of which type and shape. It owns a share of its buffer, never the numbers alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "runtime/dtype.h"

namespace longcat {

/// Bytes that somebody allocated (arena, file mapping, heap); freed when the last tensor, command or graph lets go.
class Buffer {
 public:
  Buffer(std::byte* data, size_t bytes) : data_(data), bytes_(bytes) {}
  virtual ~Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  std::byte* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 protected:
  std::byte* data_;
  size_t bytes_;
};

constexpr int kMaxRank = 4;

struct Tensor {
  DType dtype = DType::f32;
  int rank = 0;
  int64_t shape[kMaxRank] = {1, 1, 1, 1};
  int64_t rowStride = 0;  // elements from one index of the first dimension to the next; = product of the others unless a column view
  std::byte* data = nullptr;
  std::shared_ptr<Buffer> buffer;
  // A stack: shape[0] parts of equal shape (the experts' matrices), each wherever its file has it. `data` is null then, or on a GPU
  // the list of their addresses in its memory.
  std::shared_ptr<const std::vector<const std::byte*>> parts;

  int64_t elements() const {
    int64_t n = 1;
    for (int i = 0; i < rank; ++i) n *= shape[i];
    return n;
  }
  bool contiguous() const { return !parts && (rank < 2 || rowStride == elements() / (shape[0] ? shape[0] : 1)); }
};

}  // namespace longcat
