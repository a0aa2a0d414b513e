// Pinned host memory on the way to and from a GPU.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <vector>

#include "cuda/events.h"
#include "cuda/ring_space.h"

namespace longcat {

/// What is written to the device passes through here: a ring of pinned memory whose regions are free again when their copy is done.
/// Belongs to one thread.
class UploadRing {
 public:
  explicit UploadRing(size_t bytes);
  ~UploadRing();
  UploadRing(const UploadRing&) = delete;
  UploadRing& operator=(const UploadRing&) = delete;

  size_t largest() const { return bytes_ / 4; }
  /// Copies `bytes` (at most `largest`) of host memory to the device in stream order; `from` may be reused at once. Waits while the ring is full.
  void send(cudaStream_t stream, std::byte* to, const std::byte* from, size_t bytes);

 private:
  void freeOldest() { events_.giveBack(space_.pop()); }

  EventPool events_;
  RingSpace<cudaEvent_t> space_;  // a region is free when its event has passed
  std::byte* data_;
  size_t bytes_;
};

/// Pinned blocks for reads, used again and again. Belongs to one thread.
class ReadPool {
 public:
  ~ReadPool();
  struct Block {
    std::byte* data = nullptr;
    size_t bytes = 0;
  };
  Block take(size_t bytes);
  void giveBack(Block block) { free_.push_back(block); }

 private:
  std::vector<Block> free_;
};

}  // namespace longcat
