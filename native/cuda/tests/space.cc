// What is free in the upload ring, in the arena and among the spare blocks: a thousand random steps beside a plain list of who has which byte.
#include <algorithm>
#include <string>
#include <vector>

#include "cuda/holes.h"
#include "cuda/ring_space.h"
#include "cuda/spare_blocks.h"
#include "ops/harness.h"

using namespace longcat;

namespace {

/// Who has which byte; 0: nobody.
class Owners {
 public:
  Owners(TestContext& t, size_t bytes) : t_(t), owner_(bytes, 0) {}

  void take(size_t begin, size_t bytes, int owner) {
    bool free = begin + bytes <= owner_.size();
    for (size_t i = begin; free && i < begin + bytes; ++i) free = owner_[i] == 0;
    t_.expect(free, "bytes " + std::to_string(begin) + " to " + std::to_string(begin + bytes) + " belong to nobody");
    if (free) std::fill_n(owner_.begin() + static_cast<std::ptrdiff_t>(begin), bytes, owner);
  }
  void free(int owner) { std::replace(owner_.begin(), owner_.end(), owner, 0); }
  /// The most bytes in one piece that nobody has.
  size_t largest() const {
    size_t most = 0, run = 0;
    for (int owner : owner_) most = std::max(most, run = owner ? 0 : run + 1);
    return most;
  }
  size_t total() const { return static_cast<size_t>(std::count(owner_.begin(), owner_.end(), 0)); }

 private:
  TestContext& t_;
  std::vector<int> owner_;
};

}  // namespace

LONGCAT_TEST(upload_ring) {
  constexpr size_t kBytes = 100;
  RingSpace<int> ring(kBytes);
  Owners owners(t, kBytes);
  int oldest = 1, next = 1, waits = 0;
  for (int step = 0; step < 1000; ++step) {
    const size_t bytes = static_cast<size_t>(1 + t.randomInteger(kBytes / 4));  // as UploadRing::largest() has it
    auto begin = ring.find(bytes);
    for (; !begin; begin = ring.find(bytes), ++waits) {
      t.expect(!ring.empty() && ring.oldest() == oldest, "a full ring has an oldest region");
      owners.free(ring.pop());
      ++oldest;
    }
    owners.take(*begin, bytes, next);
    ring.push(*begin, bytes, next++);
    while (!ring.empty() && t.randomInteger(4) == 0) {  // some copies are done early
      t.expect(ring.oldest() == oldest, "regions are freed in order");
      owners.free(ring.pop());
      ++oldest;
    }
  }
  t.expect(waits > 100, "the ring was full often");
}

LONGCAT_TEST(upload_ring) {
  RingSpace<int> ring(100);
  ring.push(*ring.find(60), 60, 1);
  ring.push(*ring.find(40), 40, 2);
  t.expect(!ring.find(1), "a full ring has no place");
  ring.pop();
  t.expect(ring.find(60) == 0 && !ring.find(61), "it goes on at the start");
  ring.push(0, 60, 3);
  t.expect(!ring.find(1), "full again, head and tail in the same place");
  ring.pop();
  t.expect(ring.find(40) == 60 && !ring.find(41), "what was at the end is free");
  ring.pop();
  t.expect(ring.empty() && ring.find(100) == 0 && !ring.find(101), "an empty ring is one piece");
}

LONGCAT_TEST(arena) {
  constexpr size_t kBytes = 1000;
  Holes holes(kBytes);
  Owners owners(t, kBytes);
  struct Piece { size_t offset, bytes; int owner; };
  std::vector<Piece> pieces;
  int refusals = 0;
  for (int step = 1; step <= 1000; ++step) {
    const size_t bytes = static_cast<size_t>(1 + t.randomInteger(120));
    if (const auto offset = holes.take(bytes)) {
      owners.take(*offset, bytes, step);
      pieces.push_back({*offset, bytes, step});
    } else {
      ++refusals;
      t.expect(owners.largest() < bytes, "what would fit is not refused");
      for (int i = 0; i < 3 && !pieces.empty(); ++i) {
        std::swap(pieces[static_cast<size_t>(t.randomInteger(static_cast<int64_t>(pieces.size())))], pieces.back());
        holes.giveBack(pieces.back().offset, pieces.back().bytes);
        owners.free(pieces.back().owner);
        pieces.pop_back();
      }
    }
    t.expect(holes.largest() == owners.largest() && holes.total() == owners.total(), "what is free, in one piece and in all");
  }
  t.expect(refusals > 50, "the arena was full often");
  for (const Piece& piece : pieces) holes.giveBack(piece.offset, piece.bytes);
  t.expect(holes.take(kBytes) == 0, "given back, all is one piece");
}

LONGCAT_TEST(spare_blocks) {
  constexpr size_t kSmallest = SpareBlocks::kSmallest, kMost = 16 * kSmallest;
  for (const auto& [bytes, size] : {std::pair{size_t{0}, kSmallest}, {kSmallest, kSmallest}, {kSmallest + 1, 2 * kSmallest}, {5 * kSmallest, 8 * kSmallest}})
    t.expect(SpareBlocks::sizeFor(bytes) == size, "a block of the next power of two");
  SpareBlocks spare(kMost);
  std::vector<std::pair<size_t, int>> model;  // size and name of each that is kept
  std::vector<std::byte> names(1000);
  size_t kept = 0;
  int refusals = 0, served = 0;
  for (int step = 0; step < 1000; ++step) {
    const size_t size = SpareBlocks::sizeFor(kSmallest * static_cast<size_t>(1 + t.randomInteger(6)));
    if (t.randomInteger(3)) {
      const auto same = std::count_if(model.begin(), model.end(), [&](const auto& one) { return one.first == size; });
      const bool few = size <= SpareBlocks::kSmall && static_cast<size_t>(same) < SpareBlocks::kOfSmall, room = few || kept + size <= kMost;
      t.expect(spare.keep(&names[static_cast<size_t>(step)], size) == room, "blocks are kept up to the limit, and a few of each small size beyond it");
      if (room) model.push_back({size, step}), kept += size;
      else ++refusals;
    } else {
      const std::byte* block = spare.take(size);
      const auto had = std::find_if(model.begin(), model.end(), [&](const auto& one) { return block ? block == &names[static_cast<size_t>(one.second)] : one.first == size; });
      t.expect((had != model.end()) == (block != nullptr) && (!block || had->first == size), "a block of that size, where one is kept");
      if (block) model.erase(had), kept -= size, ++served;
    }
    t.expect(spare.bytes() == kept, "what is kept is counted");
  }
  t.expect(refusals > 50 && served > 50, "the limit was met, and blocks were used again");
  size_t rest = 0;
  while (spare.takeAny()) ++rest;
  t.expect(rest == model.size() && spare.bytes() == 0, "all come out at the end");
}
