// The CPU as a backend.
#include "runtime/cpu_backend.h"

#include <cstring>

#include "comm/shared_window.h"
#include "runtime/convert.h"
#include "runtime/memory.h"
#include "runtime/processor.h"

namespace longcat {

CpuBackend::CpuBackend(int threads, Isa isa, bool poison, std::shared_ptr<std::atomic<int64_t>> counter)
    : threads_(threads), isa_(isa), poison_(poison), counter_(std::move(counter)) {}

std::shared_ptr<Buffer> CpuBackend::allocate(size_t bytes, const char* purpose) { return allocateBuffer(bytes, purpose, counter_); }

int64_t CpuBackend::freeBytes() const { return availableMemory(); }

std::shared_ptr<Buffer> CpuBackend::createWindow(size_t bytes, WindowHandle& handle) { return createSharedWindow(bytes, counter_, handle); }

std::shared_ptr<Buffer> CpuBackend::openWindow(const WindowHandle& handle) { return openSharedWindow(handle); }

void CpuBackend::op(const Command& command) {
  if (poison_) {
    for (const Tensor& tensor : command.poisoned) fillBytes(tensor, 0xff);
    if (scratch_) std::memset(scratch_->data(), 0xff, scratch_->bytes());
  }
  const CpuContext context{*pool_, scratch_ ? scratch_->data() : nullptr, scratchBytes_};
  command.spec->cpu[static_cast<int>(isa_)](command.params, context);
}

void CpuBackend::fill(const Command& command) { fillBytes(command.target, command.byteValue); }

void CpuBackend::copy(const Command& command) {
  std::memmove(command.target.data + command.targetByte, command.source.data + command.sourceByte, command.bytes);
}

void CpuBackend::write(const Command& command) { std::memcpy(command.target.data + command.targetByte, command.payload, command.bytes); }

void CpuBackend::read(const Command& command) {
  std::memcpy(command.into->data(), command.source.data + command.sourceByte, command.bytes);
  settle_(command.token, command.into, nullptr);
}

void CpuBackend::convert(const Command& command) {
  const bool scaled = command.scale.buffer || command.scale.parts;
  convertInto(command.source, scaled ? &command.scale : nullptr, command.target, *pool_);
}

void CpuBackend::upload(const Command& command) { std::memcpy(command.target.data, command.source.data, spanBytes(command.source)); }

void CpuBackend::scratch(const Command& command) {
  scratch_ = command.scratch;
  scratchBytes_ = command.bytes;
}

}  // namespace longcat
