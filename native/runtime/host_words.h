// Words in host memory that JavaScript and the device see at once, not in queue order: how an exchange between ranks is told to give up.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "runtime/error.h"
#include "runtime/tensor.h"

namespace longcat {

/// int32 words over memory that a backend allocated for the host.
class HostWords : public Buffer {
 public:
  explicit HostWords(std::shared_ptr<Buffer> memory) : Buffer(memory->data(), memory->bytes()), memory_(std::move(memory)) {
    for (size_t i = 0; i * sizeof(int32_t) < bytes_; ++i) word(data_, i).store(0);
  }

  static std::atomic_ref<int32_t> word(std::byte* data, size_t index) { return std::atomic_ref<int32_t>(reinterpret_cast<int32_t*>(data)[index]); }

 private:
  std::shared_ptr<Buffer> memory_;
};

/// Word `index` of a tensor over HostWords. Throws INTERNAL for any other tensor.
inline std::atomic_ref<int32_t> hostWord(const Tensor& tensor, int64_t index) {
  const bool fits = dynamic_cast<const HostWords*>(tensor.buffer.get()) && tensor.dtype == DType::i32 && tensor.rank == 1 && index >= 0 && index < tensor.shape[0];
  require(fits, "word " + std::to_string(index) + " of a tensor that has none: hostWords makes them");
  return HostWords::word(tensor.data, static_cast<size_t>(index));
}

}  // namespace longcat
