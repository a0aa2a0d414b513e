// Finding and opening NCCL; its errors.
#include "comm/nccl.h"

#include <dlfcn.h>

#include <map>
#include <memory>
#include <mutex>

#include "runtime/error.h"

namespace longcat {
namespace {

constexpr int kSuccess = 0;
constexpr int kLeastVersion = 21800;  // 10000 · major + 100 · minor + patch; before 2.9 it was counted otherwise, and less
const char* const kUsualNames[] = {"libnccl.so.2", "libnccl.so"};
const char* const kAdvice = "; install NCCL 2.18 or newer, or name its library in LONGCAT_NCCL";

std::string versionName(int version) {
  const int major = version < 10000 ? 1000 : 10000;
  return std::to_string(version / major) + "." + std::to_string(version % major / 100) + "." + std::to_string(version % 100);
}

/// The file that a function was loaded from; `otherwise` where the linker does not say.
std::string fileOf(const void* function, const std::string& otherwise) {
  Dl_info info{};
  return dladdr(function, &info) && info.dli_fname ? info.dli_fname : otherwise;
}

template <class F>
void find(void* library, const std::string& name, const char* symbol, F*& function) {
  function = reinterpret_cast<F*>(dlsym(library, symbol));
  if (!function) throw Error("DEVICE_UNAVAILABLE", name + " is no NCCL, or too old a one: it has no " + symbol + kAdvice);
}

}  // namespace

Nccl::Nccl(void* library, const std::string& name) {
  NcclFunctions& f = functions_;
  find(library, name, "ncclGetVersion", f.ncclGetVersion);
  find(library, name, "ncclGetErrorString", f.ncclGetErrorString);
  int version = 0;
  const int result = f.ncclGetVersion(&version);
  const std::string file = fileOf(reinterpret_cast<const void*>(f.ncclGetVersion), name);
  description_ = versionName(version) + " at " + file;
  if (result != kSuccess || version < kLeastVersion)
    throw Error("DEVICE_UNAVAILABLE", "NCCL " + description_ + " is too old: 2.18 or newer is needed" + kAdvice);
  find(library, file, "ncclGetUniqueId", f.ncclGetUniqueId);
  find(library, file, "ncclCommInitRank", f.ncclCommInitRank);
  find(library, file, "ncclCommAbort", f.ncclCommAbort);
  find(library, file, "ncclCommGetAsyncError", f.ncclCommGetAsyncError);
  find(library, file, "ncclGroupStart", f.ncclGroupStart);
  find(library, file, "ncclGroupEnd", f.ncclGroupEnd);
  find(library, file, "ncclSend", f.ncclSend);
  find(library, file, "ncclRecv", f.ncclRecv);
  find(library, file, "ncclGetLastError", f.ncclGetLastError);
}

const Nccl& Nccl::open(const std::string& path) {
  static std::mutex mutex;
  static auto& opened = *new std::map<std::string, std::unique_ptr<const Nccl>>;  // for good: NCCL's threads may outlive all else
  const std::lock_guard<std::mutex> lock(mutex);
  std::unique_ptr<const Nccl>& nccl = opened[path];
  if (nccl) return *nccl;
  std::string failures;
  const auto tryToOpen = [&](const std::string& name) {
    if (void* library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL)) {
      nccl.reset(new Nccl(library, name));
      return true;
    }
    const char* why = dlerror();
    failures += (failures.empty() ? "" : "; ") + name + " (" + (why ? why : "no reason given") + ")";
    return false;
  };
  if (!path.empty()) {
    if (tryToOpen(path)) return *nccl;
    throw Error("DEVICE_UNAVAILABLE", "NCCL could not be opened where LONGCAT_NCCL says: " + failures);
  }
  for (const char* name : kUsualNames) {
    if (tryToOpen(name)) return *nccl;
  }
  throw Error("DEVICE_UNAVAILABLE", "NCCL was not found. Looked for " + failures + kAdvice);
}

std::string Nccl::describe(int result, const char* call) const {
  std::string words = std::string(call) + ": " + functions_.ncclGetErrorString(result);
  const char* last = functions_.ncclGetLastError(nullptr);
  if (last && *last) words += ": " + std::string(last);
  while (!words.empty() && words.back() == '\n') words.pop_back();
  return words;
}

void Nccl::check(int result, const char* call) const {
  if (result != kSuccess) throw Error("COMM_ERROR", describe(result, call));
}

NcclId Nccl::uniqueId() const {
  NcclId id{};
  LONGCAT_NCCL(*this, ncclGetUniqueId(&id));
  return id;
}

}  // namespace longcat
