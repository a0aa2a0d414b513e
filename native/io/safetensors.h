// Safetensors files, memory-mapped: an 8-byte little-endian header length, a JSON header, the tensors' bytes.
// Nothing in a file is believed before it is checked against the file's true size.
//
// What cannot be checked: a mapped file that another program cuts short afterwards ends the process with SIGBUS when its missing
// pages are read. The size is compared once more after mapping; replacing a file by rename is always safe.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/dtype.h"
#include "runtime/tensor.h"

namespace longcat {

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own limit
constexpr int kNoDType = -1;                       // a dtype of the format that no operation takes, as F16

struct SafetensorsEntry {
  std::string name;
  std::string storedDtype;      // as the file writes it: "BF16"
  int32_t dtype = kNoDType;     // a DType, or kNoDType
  std::vector<int64_t> shape;   // each ≥ 0 and < 2^53
  uint64_t begin = 0, end = 0;  // bytes [begin, end) of the file
};

/// The header's length from the file's first 8 bytes. Throws Error("CHECKPOINT_INVALID") naming `file` unless it lies inside.
uint64_t safetensorsHeaderLength(const unsigned char prefix[8], uint64_t fileBytes, const std::string& file);

/// Parses and checks a header. The entries, in file order, cover the bytes behind the header without overlap or hole.
/// Throws Error("CHECKPOINT_INVALID") naming `file` and, where one is at fault, the tensor.
std::vector<SafetensorsEntry> parseSafetensorsHeader(std::string_view header, uint64_t fileBytes, const std::string& file);

/// Writes `text` so that it fits into a message: control characters replaced, the middle left out where it is long.
std::string forMessage(std::string_view text, size_t maxBytes = 100);

class MappedFile {
 public:
  /// Opens, checks, maps. Throws Error("CHECKPOINT_INVALID"); never blocks on a FIFO or a device.
  static std::shared_ptr<MappedFile> open(const std::string& path);

  const std::string& path() const { return path_; }
  uint64_t bytes() const { return buffer_->bytes(); }
  const std::vector<SafetensorsEntry>& entries() const { return entries_; }
  /// The mapping, read-only; it lives as long as anybody holds it.
  const std::shared_ptr<Buffer>& buffer() const { return buffer_; }

 private:
  std::string path_;
  std::vector<SafetensorsEntry> entries_;
  std::shared_ptr<Buffer> buffer_;
};

}  // namespace longcat
