// Which bytes of a ring are in use: regions are taken in order, and are free again in order. Arithmetic alone, no memory.
#pragma once

#include <cstddef>
#include <deque>
#include <optional>
#include <utility>

namespace longcat {

/// A ring of `bytes` bytes whose regions carry a Mark: what says that a region's user is done.
template <class Mark>
class RingSpace {
 public:
  explicit RingSpace(size_t bytes) : bytes_(bytes) {}

  bool empty() const { return regions_.empty(); }
  const Mark& oldest() const { return regions_.front().mark; }

  /// Where `bytes` in one piece are free, if anywhere. They are taken once `push` says so.
  std::optional<size_t> find(size_t bytes) const {
    if (regions_.empty()) return bytes <= bytes_ ? std::optional<size_t>(0) : std::nullopt;
    const size_t begin = regions_.front().begin, end = regions_.back().end;
    if (end > begin) {
      if (bytes_ - end >= bytes) return end;
      return begin >= bytes ? std::optional<size_t>(0) : std::nullopt;  // the rest of the end stays unused this time round
    }
    return begin - end >= bytes ? std::optional<size_t>(end) : std::nullopt;
  }
  /// Takes [begin, begin + bytes), bytes > 0, as `find` has just given it.
  void push(size_t begin, size_t bytes, Mark mark) { regions_.push_back({begin, begin + bytes, std::move(mark)}); }
  /// Frees the oldest region; its mark.
  Mark pop() {
    Mark mark = std::move(regions_.front().mark);
    regions_.pop_front();
    return mark;
  }

 private:
  struct Region {
    size_t begin, end;
    Mark mark;
  };
  size_t bytes_;
  std::deque<Region> regions_;  // in the order of the ring, which wraps at most once
};

}  // namespace longcat
