// A device's windows for an exchange between ranks, and the words by which its host and it speak meanwhile.
#include <string>
#include <utility>

#include "comm/window.h"
#include "runtime/device.h"
#include "runtime/error.h"
#include "runtime/host_words.h"
#include "runtime/memory.h"

namespace longcat {
namespace {

/// The table of windows. While it lives, all of them are open.
class JoinedWindows : public Buffer {
 public:
  JoinedWindows(std::shared_ptr<Buffer> table, std::vector<std::shared_ptr<Buffer>> windows)
      : Buffer(table->data(), table->bytes()), table_(std::move(table)), windows_(std::move(windows)) {}

 private:
  std::shared_ptr<Buffer> table_;
  std::vector<std::shared_ptr<Buffer>> windows_;
};

}  // namespace

Tensor Device::createWindow(size_t bytes, WindowHandle& handle) {
  Tensor tensor;
  tensor.dtype = DType::u8;
  tensor.rank = 1;
  tensor.rowStride = 1;
  tensor.shape[0] = static_cast<int64_t>(bytes);
  tensor.buffer = backend_->createWindow(bytes, handle);
  tensor.data = tensor.buffer->data();
  return tensor;
}

Tensor Device::joinWindows(const Tensor& own, int64_t rank, const std::vector<WindowHandle>& handles) {
  const auto ranks = static_cast<int64_t>(handles.size());
  require(ranks >= 1 && ranks <= kMaxRanks && rank >= 0 && rank < ranks, "rank " + std::to_string(rank) + " of " + std::to_string(ranks));
  require(handles[rank].address == reinterpret_cast<uint64_t>(own.data) && handles[rank].processToken == thisProcessToken(),
          "the handle of rank " + std::to_string(rank) + " is not the own window's");
  std::vector<std::shared_ptr<Buffer>> windows;
  std::vector<int64_t> addresses;
  for (int64_t r = 0; r < ranks; ++r) {
    const WindowHandle& handle = handles[r];
    try {
      if (handle.magic != WindowHandle::kMagic) throw Error("COMM_ERROR", "its window's handle is none of this version");
      if (handle.bytes != own.buffer->bytes())
        throw Error("COMM_ERROR", "its window has " + std::to_string(handle.bytes) + " bytes, that of rank " + std::to_string(rank) + " has " +
                                      std::to_string(own.buffer->bytes()) + ": the ranks' models or options differ");
      windows.push_back(r == rank ? own.buffer : backend_->openWindow(handle));
    } catch (const Error& error) {
      throw Error(error.code(), "rank " + std::to_string(r) + ": " + error.what());
    }
    addresses.push_back(static_cast<int64_t>(reinterpret_cast<intptr_t>(windows.back()->data())));
  }
  Tensor table = allocate(DType::i64, &ranks, 1);
  Command* command = claimWaiting(CommandKind::write);
  place(*command, addresses.data(), addresses.size() * sizeof(int64_t));
  command->target = table;
  command->targetByte = 0;
  publish();
  table.buffer = std::make_shared<JoinedWindows>(std::move(table.buffer), std::move(windows));
  return table;
}

Tensor Device::hostWords(int64_t count) {
  Tensor words = denseTensor(DType::i32, &count, 1);
  words.buffer = std::make_shared<HostWords>(backend_->allocateHost(spanBytes(words), "words of an exchange between ranks"));
  words.data = words.buffer->data();
  if (count > 0) hostWords_.push_back(words.buffer);
  return words;
}

void Device::giveUpWaiting() {
  for (const std::weak_ptr<Buffer>& words : hostWords_) {
    if (const std::shared_ptr<Buffer> there = words.lock()) HostWords::word(there->data(), 0).store(1);
  }
}

}  // namespace longcat
