// Allocation by anonymous mapping (large) or from the heap (small), and filling.
#include "runtime/memory.h"

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>

#include "runtime/error.h"
#include "runtime/processor.h"

namespace longcat {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kMapFrom = size_t{1} << 18;        // from here on by mmap
constexpr size_t kHugeFrom = size_t{8} << 20;       // from here on in huge pages where the system has them: fewer address look-ups
constexpr size_t kAskFrom = size_t{64} << 20;       // from here on what is there is looked up first

std::string inUnits(double bytes) {
  char text[32];
  if (bytes >= 1e9) std::snprintf(text, sizeof text, "%.2f GB", bytes / 1e9);
  else if (bytes >= 1e6) std::snprintf(text, sizeof text, "%.1f MB", bytes / 1e6);
  else std::snprintf(text, sizeof text, "%.0f bytes", bytes);
  return text;
}

[[noreturn]] void outOfMemory(size_t bytes, const char* purpose) { throw outOfMemoryError(bytes, purpose, availableMemory()); }

class HeapBuffer : public Buffer {
 public:
  HeapBuffer(size_t bytes, const char* purpose, std::shared_ptr<std::atomic<int64_t>> counter)
      : Buffer(nullptr, bytes), mapped_(bytes >= kMapFrom), counter_(std::move(counter)) {
    void* memory = nullptr;
    if (mapped_) {
      if (bytes >= kAskFrom && bytes > static_cast<size_t>(availableMemory())) outOfMemory(bytes, purpose);
      memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (memory == MAP_FAILED) outOfMemory(bytes, purpose);
      if (bytes >= kHugeFrom) madvise(memory, bytes, MADV_HUGEPAGE);  // a wish: a refusal changes nothing
    } else {
      const size_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
      memory = std::aligned_alloc(kAlignment, rounded ? rounded : kAlignment);
      if (!memory) outOfMemory(bytes, purpose);
      std::memset(memory, 0, rounded);
    }
    data_ = static_cast<std::byte*>(memory);
    if (counter_) counter_->fetch_add(static_cast<int64_t>(bytes));
  }
  ~HeapBuffer() override {
    if (mapped_) munmap(data_, bytes_);
    else std::free(data_);
    if (counter_) counter_->fetch_sub(static_cast<int64_t>(bytes_));
  }

 private:
  bool mapped_;
  std::shared_ptr<std::atomic<int64_t>> counter_;
};

}  // namespace

Error outOfMemoryError(size_t bytes, const char* purpose, int64_t there) {
  return Error("OUT_OF_MEMORY", "asked for " + inUnits(static_cast<double>(bytes)) + " for " + purpose + ", " + inUnits(static_cast<double>(there)) +
                                    " are there");
}

std::shared_ptr<Buffer> allocateBuffer(size_t bytes, const char* purpose, std::shared_ptr<std::atomic<int64_t>> counter) {
  return std::make_shared<HeapBuffer>(bytes, purpose, std::move(counter));
}

Tensor denseTensor(DType dtype, const int64_t* shape, int rank) {
  require(rank >= 1 && rank <= kMaxRank, "a tensor has 1 to 4 dimensions, not " + std::to_string(rank));
  Tensor tensor;
  tensor.dtype = dtype;
  tensor.rank = rank;
  int64_t bytes = static_cast<int64_t>(bytesOf(dtype));
  for (int i = 0; i < rank; ++i) {
    require(shape[i] >= 0, "a dimension of " + std::to_string(shape[i]));
    if (__builtin_mul_overflow(bytes, shape[i], &bytes)) throw Error("OUT_OF_MEMORY", "asked for a tensor of more than 2^63 bytes");
    tensor.shape[i] = shape[i];
  }
  tensor.rowStride = 1;
  for (int i = 1; i < rank; ++i) tensor.rowStride *= shape[i];
  return tensor;
}

Tensor allocateTensor(DType dtype, const int64_t* shape, int rank, std::shared_ptr<std::atomic<int64_t>> counter) {
  Tensor tensor = denseTensor(dtype, shape, rank);
  tensor.buffer = allocateBuffer(spanBytes(tensor), "a tensor", std::move(counter));
  tensor.data = tensor.buffer->data();
  return tensor;
}

void fillBytes(const Tensor& tensor, int byte) {
  if (tensor.parts || tensor.elements() == 0) return;
  const size_t size = bytesOf(tensor.dtype);
  if (tensor.contiguous()) {
    std::memset(tensor.data, byte, static_cast<size_t>(tensor.elements()) * size);
    return;
  }
  const size_t row = static_cast<size_t>(tensor.elements() / tensor.shape[0]) * size;
  for (int64_t r = 0; r < tensor.shape[0]; ++r) {
    std::memset(tensor.data + static_cast<size_t>(r * tensor.rowStride) * size, byte, row);
  }
}

size_t spanBytes(const Tensor& tensor) {
  if (tensor.parts || tensor.elements() == 0) return 0;
  const int64_t row = tensor.elements() / tensor.shape[0];
  const int64_t elements = tensor.rank < 2 ? tensor.elements() : (tensor.shape[0] - 1) * tensor.rowStride + row;
  return static_cast<size_t>(elements) * bytesOf(tensor.dtype);
}

bool overlap(const Tensor& a, const Tensor& b) {
  return a.data && b.data && a.data < b.data + spanBytes(b) && b.data < a.data + spanBytes(a);
}

}  // namespace longcat
