// The arena: slabs from CUDA, and first fit over their holes.
#include "cuda/arena.h"

#include <cuda_runtime_api.h>

#include <algorithm>

#include "cuda/check.h"
#include "runtime/memory.h"

namespace longcat {
namespace {

constexpr size_t kAlignment = 256;
constexpr size_t kSlabBytes = size_t{32} << 20;  // of a slab that nobody reserved, at least

size_t rounded(size_t bytes) { return std::max(kAlignment, (bytes + kAlignment - 1) / kAlignment * kAlignment); }

}  // namespace

class Arena::Piece final : public Buffer {
 public:
  Piece(std::shared_ptr<Arena> arena, std::byte* data, size_t bytes) : Buffer(data, bytes), arena_(std::move(arena)) {
    arena_->counter_->fetch_add(static_cast<int64_t>(bytes));
  }
  ~Piece() override {
    arena_->counter_->fetch_sub(static_cast<int64_t>(bytes_));
    arena_->giveBack(data_, rounded(bytes_));
  }

 private:
  std::shared_ptr<Arena> arena_;
};

Arena::~Arena() {
  cudaSetDevice(gpu_);
  for (const Slab& slab : slabs_) cudaFree(slab.data);
}

std::shared_ptr<Buffer> Arena::allocate(size_t bytes, const char* purpose) {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::byte* data = take(rounded(bytes));
  if (!data) {
    addSlab(std::max(rounded(bytes), kSlabBytes), purpose);
    data = take(rounded(bytes));
  }
  return std::make_shared<Piece>(shared_from_this(), data, bytes);
}

void Arena::reserve(size_t bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (std::any_of(slabs_.begin(), slabs_.end(), [&](const Slab& slab) { return slab.holes.largest() >= bytes; })) return;
  addSlab(rounded(bytes), "the model");
}

int64_t Arena::freeBytes() const {
  LONGCAT_CUDA(cudaSetDevice(gpu_));
  size_t free = 0, total = 0;
  LONGCAT_CUDA(cudaMemGetInfo(&free, &total));
  const std::lock_guard<std::mutex> lock(mutex_);
  for (const Slab& slab : slabs_) free += slab.holes.total();
  return static_cast<int64_t>(free);
}

std::byte* Arena::take(size_t bytes) {
  for (Slab& slab : slabs_) {
    if (const auto offset = slab.holes.take(bytes)) return slab.data + *offset;
  }
  return nullptr;
}

void Arena::giveBack(std::byte* data, size_t bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  for (Slab& slab : slabs_) {
    if (data >= slab.data && data < slab.data + slab.bytes) return slab.holes.giveBack(static_cast<size_t>(data - slab.data), bytes);
  }
}

void Arena::addSlab(size_t bytes, const char* purpose) {
  LONGCAT_CUDA(cudaSetDevice(gpu_));
  void* data = nullptr;
  const cudaError_t error = cudaMalloc(&data, bytes);
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    size_t free = 0, total = 0;
    LONGCAT_CUDA(cudaMemGetInfo(&free, &total));
    throw outOfMemoryError(bytes, (std::string(purpose) + " on the GPU").c_str(), static_cast<int64_t>(free));
  }
  LONGCAT_CUDA(error);
  slabs_.push_back({static_cast<std::byte*>(data), bytes, Holes(bytes)});
}

}  // namespace longcat
