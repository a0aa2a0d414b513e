// Pinned host memory on the way to and from a GPU.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

#include "cuda/events.h"
#include "cuda/ring_space.h"
#include "cuda/spare_blocks.h"

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

/// Pinned blocks for reads, used again and again: a step's results for good, the large ones of sequences that give way up to a limit.
/// Belongs to one thread.
class ReadPool {
 public:
  ReadPool() = default;
  ~ReadPool();
  ReadPool(const ReadPool&) = delete;
  ReadPool& operator=(const ReadPool&) = delete;
  struct Block {
    std::byte* data = nullptr;
    size_t bytes = 0;
  };
  Block take(size_t bytes);
  void giveBack(Block block);

 private:
  static constexpr size_t kMostSpare = size_t{256} << 20;

  SpareBlocks spare_{kMostSpare};
};

}  // namespace longcat
