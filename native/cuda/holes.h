// The free parts of a piece of memory: first fit, neighbours merged. Arithmetic alone, no memory.
#pragma once

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <map>
#include <optional>

namespace longcat {

class Holes {
 public:
  explicit Holes(size_t bytes) : free_{{0, bytes}} {}

  /// The offset of `bytes` that are taken from the first hole that has them.
  std::optional<size_t> take(size_t bytes) {
    const auto fit = std::find_if(free_.begin(), free_.end(), [&](const auto& hole) { return hole.second >= bytes; });
    if (fit == free_.end()) return std::nullopt;
    const auto [offset, there] = *fit;
    free_.erase(fit);
    if (there > bytes) free_.emplace(offset + bytes, there - bytes);
    return offset;
  }

  void giveBack(size_t offset, size_t bytes) {
    const auto next = free_.lower_bound(offset);
    if (next != free_.begin()) {
      const auto before = std::prev(next);
      if (before->first + before->second == offset) {
        offset = before->first;
        bytes += before->second;
        free_.erase(before);
      }
    }
    if (next != free_.end() && next->first == offset + bytes) {
      bytes += next->second;
      free_.erase(next);
    }
    free_.emplace(offset, bytes);
  }

  size_t largest() const {
    size_t most = 0;
    for (const auto& [offset, bytes] : free_) most = std::max(most, bytes);
    return most;
  }
  size_t total() const {
    size_t sum = 0;
    for (const auto& [offset, bytes] : free_) sum += bytes;
    return sum;
  }

 private:
  std::map<size_t, size_t> free_;  // offset → bytes
};

}  // namespace longcat
