// Opening, checking and mapping safetensors files; see safetensors.h.
#include "io/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <unordered_set>

#include "io/header_reader.h"
#include "runtime/error.h"

namespace longcat {

namespace {

struct StoredDType {
  const char* name;
  uint64_t bytes;
  int32_t dtype;
};

constexpr int32_t id(DType d) { return static_cast<int32_t>(d); }

constexpr StoredDType kStoredDTypes[] = {
    {"F32", 4, id(DType::f32)},  {"BF16", 2, id(DType::bf16)}, {"F8_E4M3", 1, id(DType::f8e4m3)}, {"I32", 4, id(DType::i32)},
    {"I64", 8, id(DType::i64)},  {"F64", 8, id(DType::f64)},   {"U8", 1, id(DType::u8)},          {"F16", 2, kNoDType},
    {"F8_E5M2", 1, kNoDType},    {"F8_E8M0", 1, kNoDType},     {"BOOL", 1, kNoDType},             {"I8", 1, kNoDType},
    {"I16", 2, kNoDType},        {"U16", 2, kNoDType},         {"U32", 4, kNoDType},              {"U64", 8, kNoDType},
    {"C64", 8, kNoDType}};

[[noreturn]] void invalid(const std::string& file, const std::string& problem) {
  throw Error("CHECKPOINT_INVALID", forMessage(file, 120) + ": " + problem);
}

const StoredDType& storedDType(const HeaderReader& in, const std::string& name) {
  for (const StoredDType& d : kStoredDTypes)
    if (name == d.name) return d;
  in.fail("dtype \"" + forMessage(name, 20) + "\" is not one of F64, F32, F16, BF16, F8_E4M3, F8_E5M2, F8_E8M0, I8 … U64, BOOL, C64");
}

/// Product of the shape and the element size, or a failure where it does not fit into 2^63.
uint64_t bytesOfShape(const HeaderReader& in, const std::vector<int64_t>& shape, uint64_t elementBytes) {
  if (std::find(shape.begin(), shape.end(), 0) != shape.end()) return 0;
  uint64_t bytes = elementBytes;
  for (int64_t n : shape)
    if (__builtin_mul_overflow(bytes, static_cast<uint64_t>(n), &bytes) || bytes >> 63) in.fail("the shape's product overflows");
  return bytes;
}

/// `{"dtype": …, "shape": […], "data_offsets": [begin, end]}`; offsets are still those of the data, behind the header.
SafetensorsEntry readEntry(HeaderReader& in, std::string name) {
  SafetensorsEntry entry;
  in.tensor = name;
  entry.name = std::move(name);
  bool hasDtype = false, hasShape = false, hasOffsets = false;
  std::vector<uint64_t> offsets;
  readObject(in, "entry", [&](std::string key) {
    bool* seen = key == "dtype" ? &hasDtype : key == "shape" ? &hasShape : key == "data_offsets" ? &hasOffsets : nullptr;
    if (!seen) in.fail("\"" + forMessage(key, 30) + "\" is not one of dtype, shape, data_offsets");
    if (*seen) in.fail(key + " stands twice");
    *seen = true;
    if (seen == &hasDtype) entry.storedDtype = in.string("dtype");
    else if (seen == &hasShape) readArray(in, "shape", [&] { entry.shape.push_back(in.integer("shape")); });
    else readArray(in, "data_offsets", [&] { offsets.push_back(static_cast<uint64_t>(in.integer("data_offsets"))); });
  });
  if (!hasDtype || !hasShape || !hasOffsets) in.fail(std::string(!hasDtype ? "dtype" : !hasShape ? "shape" : "data_offsets") + " is missing");
  if (offsets.size() != 2) in.fail("data_offsets has " + std::to_string(offsets.size()) + " numbers instead of 2");
  const StoredDType& stored = storedDType(in, entry.storedDtype);
  entry.dtype = stored.dtype;
  entry.begin = offsets[0];
  entry.end = offsets[1];
  const std::string range = "[" + std::to_string(entry.begin) + ", " + std::to_string(entry.end) + "]";
  if (entry.end < entry.begin) in.fail("data_offsets " + range + " run backwards");
  const uint64_t need = bytesOfShape(in, entry.shape, stored.bytes);
  if (need != entry.end - entry.begin)
    in.fail("data_offsets " + range + " hold " + std::to_string(entry.end - entry.begin) + " bytes, shape and dtype need " + std::to_string(need));
  in.tensor.clear();
  return entry;
}

/// Entries sorted by place must follow one another and fill the data exactly.
void checkLayout(std::vector<SafetensorsEntry>& entries, uint64_t headerEnd, uint64_t fileBytes, HeaderReader& in) {
  std::sort(entries.begin(), entries.end(), [](const SafetensorsEntry& a, const SafetensorsEntry& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end != b.end ? a.end < b.end : a.name < b.name;
  });
  uint64_t at = 0;
  for (SafetensorsEntry& entry : entries) {
    in.tensor = entry.name;
    if (entry.begin < at) in.fail("begins at " + std::to_string(entry.begin) + ", within the tensor before it, which ends at " + std::to_string(at));
    if (entry.begin > at) in.fail("begins at " + std::to_string(entry.begin) + ", leaving a hole behind the tensor before it, which ends at " + std::to_string(at));
    at = entry.end;
    entry.begin += headerEnd;
    entry.end += headerEnd;
  }
  const uint64_t expected = headerEnd + at;
  if (expected == fileBytes) return;
  const auto outside = std::find_if(entries.begin(), entries.end(), [&](const SafetensorsEntry& e) { return e.end > fileBytes; });
  in.tensor = outside == entries.end() ? "" : outside->name;
  if (expected > fileBytes)
    in.fail("the file is cut short: its header describes " + std::to_string(expected) + " bytes, it has " + std::to_string(fileBytes) +
            "; download it again");
  in.fail(std::to_string(fileBytes - expected) + " bytes lie behind the last tensor: " + std::to_string(expected) + " expected, the file has " +
          std::to_string(fileBytes));
}

class Mapping final : public Buffer {
 public:
  Mapping(void* data, size_t bytes) : Buffer(static_cast<std::byte*>(data), bytes) {}
  ~Mapping() override { ::munmap(data_, bytes_); }
};

struct Descriptor {
  int fd = -1;
  ~Descriptor() { if (fd >= 0) ::close(fd); }
};

void requireRegular(const struct stat& s, const std::string& path) {
  if (S_ISREG(s.st_mode)) return;
  invalid(path, std::string("is ") + (S_ISDIR(s.st_mode) ? "a folder" : S_ISFIFO(s.st_mode) ? "a FIFO" : S_ISSOCK(s.st_mode) ? "a socket" : "a device") +
                    ", not a safetensors file");
}

/// Opened without waiting for a writer or a terminal; only a regular file is opened at all.
void openRegular(const std::string& path, Descriptor& file, struct stat& s) {
  if (path.empty() || path.find('\0') != std::string::npos) invalid(path, "is not a file name");
  if (::stat(path.c_str(), &s) != 0) invalid(path, errno == ENOENT ? "is not there" : std::string("cannot be opened: ") + std::strerror(errno));
  requireRegular(s, path);
  file.fd = ::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
  if (file.fd < 0 || ::fstat(file.fd, &s) != 0) invalid(path, std::string("cannot be opened: ") + std::strerror(errno));
  requireRegular(s, path);
}

size_t readAt(int fd, char* to, size_t bytes, size_t offset, const std::string& path) {
  size_t done = 0;
  while (done < bytes) {
    const ssize_t n = ::pread(fd, to + done, bytes - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) invalid(path, std::string("cannot be read: ") + std::strerror(errno));
    if (n == 0) break;
    done += static_cast<size_t>(n);
  }
  return done;
}

/// Files that stand where weights should be: nothing at all, or a Git LFS pointer.
void refuseStandIns(int fd, uint64_t fileBytes, const std::string& path) {
  if (fileBytes == 0) invalid(path, "is empty (0 bytes); download it again");
  char head[64] = {};
  const std::string_view start(head, readAt(fd, head, sizeof head, 0, path));
  if (start.starts_with("version https://git-lfs"))
    invalid(path, "is a Git LFS pointer, not the weights; fetch them with \"git lfs pull\" in the model's folder");
  if (fileBytes < 8) invalid(path, "has " + std::to_string(fileBytes) + " bytes; a safetensors file has 8 and a header at least");
}

}  // namespace

std::string forMessage(std::string_view text, size_t maxBytes) {
  std::string out;
  const auto append = [&](std::string_view part) {
    for (char c : part) out += static_cast<unsigned char>(c) < 0x20 || c == 0x7F ? '?' : c;
  };
  const auto inside = [&](size_t i) { return i < text.size() && (static_cast<unsigned char>(text[i]) & 0xC0) == 0x80; };
  if (text.size() <= maxBytes) {
    append(text);
    return out;
  }
  size_t head = maxBytes / 2, tail = text.size() - (maxBytes - head);
  while (head > 0 && inside(head)) --head;
  while (inside(tail)) ++tail;
  append(text.substr(0, head));
  out += "…";
  append(text.substr(tail));
  return out;
}

uint64_t safetensorsHeaderLength(const unsigned char prefix[8], uint64_t fileBytes, const std::string& file) {
  uint64_t length = 0;
  for (int i = 7; i >= 0; --i) length = length << 8 | prefix[i];
  if (fileBytes >= 8 && length <= fileBytes - 8 && length <= kMaxHeaderBytes) return length;
  const std::string says = "its first 8 bytes give a header of " + std::to_string(length) + " bytes";
  if (length > kMaxHeaderBytes) invalid(file, says + ", more than the format allows; this is not a safetensors file");
  invalid(file, says + ", which needs " + std::to_string(length + 8) + " bytes; the file has " + std::to_string(fileBytes));
}

std::vector<SafetensorsEntry> parseSafetensorsHeader(std::string_view header, uint64_t fileBytes, const std::string& file) {
  HeaderReader in(header, file);
  std::vector<SafetensorsEntry> entries;
  std::unordered_set<std::string> names;
  readObject(in, "header", [&](std::string name) {
    if (!names.insert(name).second) {
      in.tensor = name;
      in.fail("stands twice in the header");
    }
    if (name == "__metadata__") readObject(in, "__metadata__", [&](const std::string&) { in.string("__metadata__"); });
    else entries.push_back(readEntry(in, std::move(name)));
  });
  if (!in.atEnd()) in.fail("something follows the header's closing brace");
  checkLayout(entries, 8 + header.size(), fileBytes, in);
  return entries;
}

std::shared_ptr<MappedFile> MappedFile::open(const std::string& path) {
  Descriptor file;
  struct stat s {};
  openRegular(path, file, s);
  const uint64_t fileBytes = static_cast<uint64_t>(s.st_size);
  refuseStandIns(file.fd, fileBytes, path);

  unsigned char prefix[8] = {};
  readAt(file.fd, reinterpret_cast<char*>(prefix), sizeof prefix, 0, path);
  std::string header(safetensorsHeaderLength(prefix, fileBytes, path), '\0');
  if (readAt(file.fd, header.data(), header.size(), 8, path) != header.size()) invalid(path, "is being changed by another program");

  auto mapped = std::make_shared<MappedFile>();
  mapped->path_ = path;
  mapped->entries_ = parseSafetensorsHeader(header, fileBytes, path);
  void* data = ::mmap(nullptr, fileBytes, PROT_READ, MAP_PRIVATE, file.fd, 0);
  if (data == MAP_FAILED) invalid(path, std::string("cannot be mapped: ") + std::strerror(errno));
  mapped->buffer_ = std::make_shared<Mapping>(data, fileBytes);
  if (::fstat(file.fd, &s) != 0 || static_cast<uint64_t>(s.st_size) != fileBytes) invalid(path, "is being changed by another program");
  return mapped;
}

}  // namespace longcat
