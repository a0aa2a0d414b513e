// Device memory: few large pieces from CUDA, handed out and taken back without asking it again.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "cuda/holes.h"
#include "runtime/tensor.h"

namespace longcat {

/// Memory of one GPU. What is given back may be handed out again at once: users of the old and the new owner run on streams that are
/// ordered by events, as all work of a step is. Thread-safe; pieces are freed when the arena and all its buffers are gone.
class Arena : public std::enable_shared_from_this<Arena> {
 public:
  Arena(int gpu, std::shared_ptr<std::atomic<int64_t>> counter) : gpu_(gpu), counter_(std::move(counter)) {}
  ~Arena();

  /// Throws OUT_OF_MEMORY.
  std::shared_ptr<Buffer> allocate(size_t bytes, const char* purpose);
  /// Sees to it that `bytes` in one piece are there. Throws OUT_OF_MEMORY.
  void reserve(size_t bytes);
  /// Of CUDA and of this arena.
  int64_t freeBytes() const;

 private:
  class Piece;
  struct Slab {
    std::byte* data;
    size_t bytes;
    Holes holes;
  };

  std::byte* take(size_t bytes);
  void giveBack(std::byte* data, size_t bytes);
  void addSlab(size_t bytes, const char* purpose);

  int gpu_;
  std::shared_ptr<std::atomic<int64_t>> counter_;
  mutable std::mutex mutex_;
  std::vector<Slab> slabs_;
};

}  // namespace longcat
