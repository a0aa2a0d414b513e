// Blocks of memory that wait to be used again, by size: powers of two, so that one block serves many sizes and none is taken by a far smaller wish.
// Arithmetic alone, no memory.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <map>
#include <vector>

namespace longcat {

class SpareBlocks {
 public:
  static constexpr size_t kSmallest = size_t{64} << 10, kSmall = size_t{1} << 20, kOfSmall = 8;

  /// Keeps at most `mostBytes`, and beside them some of each small size, whatever else is kept: what every step needs is not to be made anew for each.
  explicit SpareBlocks(size_t mostBytes) : most_(mostBytes) {}

  /// The size of the blocks that serve `bytes`.
  static size_t sizeFor(size_t bytes) { return std::bit_ceil(std::max(kSmallest, bytes)); }

  /// A block of that size, or null.
  std::byte* take(size_t size) {
    const auto found = spare_.find(size);
    if (found == spare_.end() || found->second.empty()) return nullptr;
    std::byte* block = found->second.back();
    found->second.pop_back();
    bytes_ -= size;
    return block;
  }

  /// False where enough is kept already: the block is then its giver's to free.
  bool keep(std::byte* block, size_t size) {
    std::vector<std::byte*>& same = spare_[size];
    const bool everyStep = size <= kSmall && same.size() < kOfSmall;
    if (!everyStep && bytes_ + size > most_) return false;
    same.push_back(block);
    bytes_ += size;
    return true;
  }

  /// Any block, which is kept no longer, or null.
  std::byte* takeAny() {
    for (const auto& [size, blocks] : spare_) {
      if (!blocks.empty()) return take(size);
    }
    return nullptr;
  }

  size_t bytes() const { return bytes_; }

 private:
  std::map<size_t, std::vector<std::byte*>> spare_;
  size_t most_, bytes_ = 0;
};

}  // namespace longcat
