// NCCL, opened when it is first wanted: a build needs nothing of it, and a machine without it does everything else. The declarations are this
// project's own, of what NCCL has kept stable since 2.18.
#pragma once

#include <cstddef>
#include <string>

struct ncclComm;  // NCCL's, never looked into

namespace longcat {

/// Names a communicator to all ranks that join it. NCCL takes it by value.
struct NcclId {
  char bytes[128];
};

/// The library's functions, by their names there. Results are NCCL's codes: 0 is success.
struct NcclFunctions {
  int (*ncclGetVersion)(int* version);
  int (*ncclGetUniqueId)(NcclId* id);
  int (*ncclCommInitRank)(ncclComm** communicator, int ranks, NcclId id, int rank);
  int (*ncclCommAbort)(ncclComm* communicator);
  int (*ncclCommGetAsyncError)(ncclComm* communicator, int* error);
  int (*ncclGroupStart)();
  int (*ncclGroupEnd)();
  int (*ncclSend)(const void* from, size_t count, int dtype, int peer, ncclComm* communicator, void* stream);
  int (*ncclRecv)(void* to, size_t count, int dtype, int peer, ncclComm* communicator, void* stream);
  const char* (*ncclGetErrorString)(int result);
  const char* (*ncclGetLastError)(ncclComm* communicator);
};

constexpr int kNcclBytes = 1;  // dtype: uint8

class Nccl {
 public:
  /// The library at `path`, or, where that is empty, what the system's linker finds; it stays open. Throws DEVICE_UNAVAILABLE with all that was
  /// looked for and what was wrong with it.
  static const Nccl& open(const std::string& path);

  /// Throws COMM_ERROR with the call, NCCL's words and the last error that it noted, unless `result` is success.
  void check(int result, const char* call) const;
  /// What `check` would say.
  std::string describe(int result, const char* call) const;

  NcclId uniqueId() const;
  /// "2.28.9 at /usr/lib/x86_64-linux-gnu/libnccl.so.2"
  const std::string& description() const { return description_; }

  const NcclFunctions* operator->() const { return &functions_; }

 private:
  Nccl(void* library, const std::string& name);

  NcclFunctions functions_{};
  std::string description_;
};

}  // namespace longcat

/// Every call of NCCL's is checked: LONGCAT_NCCL(nccl, ncclSend(…)).
#define LONGCAT_NCCL(nccl, call) (nccl).check((nccl)->call, #call)
