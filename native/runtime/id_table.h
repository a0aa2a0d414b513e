// Things that JavaScript knows by a number. A number that was given back does not name its place's next owner.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "runtime/error.h"

namespace longcat {

/// Place in the low 20 bits, how often the place was given out before in the 11 above.
template <class T>
class IdTable {
 public:
  explicit IdTable(const char* what) : what_(what) {}

  int add(T value) {
    int place;
    if (!free_.empty()) {
      place = free_.back();
      free_.pop_back();
    } else {
      require(entries_.size() < kMaxEntries, std::string("more than a million entries in the table of ") + what_ + "s");
      place = static_cast<int>(entries_.size());
      entries_.emplace_back();
    }
    entries_[place].value = std::move(value);
    entries_[place].live = true;
    return place | entries_[place].generation << kPlaceBits;
  }

  T& at(int id) {
    Entry* entry = find(id);
    require(entry, std::string("no ") + what_ + " has id " + std::to_string(id) + " (released, or of another device)");
    return entry->value;
  }

  /// Forgets the id; false if it names nothing.
  bool remove(int id) {
    Entry* entry = find(id);
    if (!entry) return false;
    entry->value = T();
    entry->live = false;
    entry->generation = (entry->generation + 1) & kMaxGeneration;
    free_.push_back(id & (kMaxEntries - 1));
    return true;
  }

  void clear() {
    entries_.clear();
    free_.clear();
  }

 private:
  static constexpr int kPlaceBits = 20, kMaxEntries = 1 << kPlaceBits, kMaxGeneration = (1 << 11) - 1;
  struct Entry {
    T value{};
    int generation = 0;
    bool live = false;
  };

  Entry* find(int id) {
    const size_t place = static_cast<size_t>(id) & (kMaxEntries - 1);
    if (id < 0 || place >= entries_.size()) return nullptr;
    Entry& entry = entries_[place];
    return entry.live && entry.generation == id >> kPlaceBits ? &entry : nullptr;
  }

  const char* what_;
  std::vector<Entry> entries_;
  std::vector<int> free_;
};

}  // namespace longcat
