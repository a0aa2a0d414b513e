// Coverage-guided fuzzing of the safetensors reader (libFuzzer, AddressSanitizer): whatever the bytes, it gives entries that lie
// inside the file, in order and without overlap, or throws Error("CHECKPOINT_INVALID") with a short message. See run.sh.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>

#include "io/safetensors.h"
#include "runtime/error.h"

using namespace longcat;

static void check(bool ok) {
  if (!ok) std::abort();
}

/// The first byte decides how the rest is read: as a whole file, or as a header alone in front of as many bytes as it asks for
/// (so that good headers are found although nothing computes a length prefix).
static void readFile(const uint8_t* data, size_t size) {
  const std::string file = "fuzz.safetensors";
  const bool whole = size > 0 && data[0] % 2 == 0;
  if (size > 0) ++data, --size;
  std::string header;
  uint64_t fileBytes = size;
  if (whole) {
    unsigned char prefix[8] = {};
    std::memcpy(prefix, data, size < 8 ? size : 8);
    const uint64_t length = safetensorsHeaderLength(prefix, fileBytes, file);
    check(length + 8 <= size);
    header.assign(reinterpret_cast<const char*>(data) + 8, static_cast<size_t>(length));
  } else {
    uint16_t dataBytes = 0;
    if (size >= 2) std::memcpy(&dataBytes, data, 2), data += 2, size -= 2;
    header.assign(reinterpret_cast<const char*>(data), size);
    fileBytes = 8 + size + dataBytes;
  }
  uint64_t at = 8 + header.size();
  for (const SafetensorsEntry& entry : parseSafetensorsHeader(header, fileBytes, file)) {
    check(entry.begin == at && entry.end >= entry.begin && entry.end <= fileBytes);
    uint64_t elements = 1;
    bool empty = false;
    for (int64_t n : entry.shape) {
      check(n >= 0 && n < (int64_t{1} << 53));
      empty = empty || n == 0;
      if (n && elements <= fileBytes) elements *= static_cast<uint64_t>(n);
    }
    check(empty ? entry.end == entry.begin : elements <= entry.end - entry.begin);
    at = entry.end;
  }
  check(at == fileBytes);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    readFile(data, size);
  } catch (const Error& error) {
    check(error.code() == "CHECKPOINT_INVALID" && std::strlen(error.what()) < 400);
  }
  return 0;
}
