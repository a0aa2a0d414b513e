// The upload ring and the pool of read blocks.
#include "cuda/pinned.h"

#include <cstring>

#include "cuda/check.h"
#include "runtime/memory.h"
#include "runtime/processor.h"

namespace longcat {
namespace {

constexpr size_t kRegionAlignment = 256;

std::byte* allocatePinned(size_t bytes) {
  void* data = nullptr;
  const cudaError_t error = cudaHostAlloc(&data, bytes, cudaHostAllocDefault);
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    throw outOfMemoryError(bytes, "transfers to and from the GPU in pinned host memory", availableMemory());
  }
  LONGCAT_CUDA(error);
  return static_cast<std::byte*>(data);
}

}  // namespace

UploadRing::UploadRing(size_t bytes) : space_(bytes), data_(allocatePinned(bytes)), bytes_(bytes) {}

UploadRing::~UploadRing() {
  while (!space_.empty()) freeOldest();
  cudaFreeHost(data_);
}

void UploadRing::send(cudaStream_t stream, std::byte* to, const std::byte* from, size_t bytes) {
  // What is done is freed first, so that there are never more events than copies under way.
  while (!space_.empty()) {
    const cudaError_t state = answerOf(cudaEventQuery(space_.oldest()));
    if (state == cudaErrorNotReady) break;
    LONGCAT_CUDA(state);
    freeOldest();
  }
  const size_t region = (bytes + kRegionAlignment - 1) / kRegionAlignment * kRegionAlignment;
  std::optional<size_t> begin;
  while (!(begin = space_.find(region))) {
    LONGCAT_CUDA(cudaEventSynchronize(space_.oldest()));
    freeOldest();
  }
  std::memcpy(data_ + *begin, from, bytes);
  LONGCAT_CUDA(cudaMemcpyAsync(to, data_ + *begin, bytes, cudaMemcpyDefault, stream));
  try {
    space_.push(*begin, region, events_.record(stream));
  } catch (...) {
    cudaStreamSynchronize(stream);  // nothing says when the region is free: now it is
    throw;
  }
}

ReadPool::~ReadPool() {
  while (std::byte* block = spare_.takeAny()) cudaFreeHost(block);
}

ReadPool::Block ReadPool::take(size_t bytes) {
  const size_t size = SpareBlocks::sizeFor(bytes);
  std::byte* spare = spare_.take(size);
  return {spare ? spare : allocatePinned(size), size};
}

void ReadPool::giveBack(Block block) {
  if (!spare_.keep(block.data, block.bytes)) cudaFreeHost(block.data);
}

}  // namespace longcat
