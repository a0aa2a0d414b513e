// The upload ring and the pool of read blocks.
#include "cuda/pinned.h"

#include <algorithm>
#include <cstring>

#include "cuda/check.h"

namespace longcat {
namespace {

constexpr size_t kRegionAlignment = 256;
constexpr size_t kReadBlock = size_t{64} << 10;  // smallest block for reads

std::byte* allocatePinned(size_t bytes) {
  void* data = nullptr;
  const cudaError_t error = cudaHostAlloc(&data, bytes, cudaHostAllocDefault);
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    throw Error("OUT_OF_MEMORY", "asked for " + std::to_string(bytes) + " bytes of pinned host memory, the system gives none");
  }
  LONGCAT_CUDA(error);
  return static_cast<std::byte*>(data);
}

}  // namespace

UploadRing::UploadRing(size_t bytes) : data_(allocatePinned(bytes)), bytes_(bytes) {}

UploadRing::~UploadRing() {
  for (const Region& region : regions_) cudaEventDestroy(region.event);
  for (cudaEvent_t event : spare_) cudaEventDestroy(event);
  cudaFreeHost(data_);
}

void UploadRing::send(cudaStream_t stream, std::byte* to, const std::byte* from, size_t bytes) {
  std::byte* place = take((bytes + kRegionAlignment - 1) / kRegionAlignment * kRegionAlignment);
  std::memcpy(place, from, bytes);
  LONGCAT_CUDA(cudaMemcpyAsync(to, place, bytes, cudaMemcpyHostToDevice, stream));
  cudaEvent_t event = nullptr;
  if (spare_.empty()) {
    LONGCAT_CUDA(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  } else {
    event = spare_.back();
    spare_.pop_back();
  }
  LONGCAT_CUDA(cudaEventRecord(event, stream));
  regions_.push_back({head_, event});
}

void UploadRing::freeOldest() {
  LONGCAT_CUDA(cudaEventSynchronize(regions_.front().event));
  tail_ = regions_.front().end;
  spare_.push_back(regions_.front().event);
  regions_.pop_front();
}

/// The next `bytes` of the ring, which head_ passes.
std::byte* UploadRing::take(size_t bytes) {
  while (true) {
    if (regions_.empty()) head_ = tail_ = 0;
    const bool wrapped = head_ < tail_ || (head_ == tail_ && !regions_.empty());
    if (wrapped ? tail_ - head_ >= bytes : bytes_ - head_ >= bytes) break;
    if (!wrapped && tail_ >= bytes) {  // the rest of the end stays unused this time round
      head_ = 0;
      break;
    }
    freeOldest();
  }
  std::byte* place = data_ + head_;
  head_ += bytes;
  return place;
}

ReadPool::~ReadPool() {
  for (const Block& block : free_) cudaFreeHost(block.data);
}

ReadPool::Block ReadPool::take(size_t bytes) {
  const auto fit = std::find_if(free_.begin(), free_.end(), [&](const Block& block) { return block.bytes >= bytes; });
  if (fit != free_.end()) {
    const Block block = *fit;
    free_.erase(fit);
    return block;
  }
  const size_t size = std::max(kReadBlock, (bytes + kReadBlock - 1) / kReadBlock * kReadBlock);
  return {allocatePinned(size), size};
}

}  // namespace longcat
