// Affinity, container quotas (cgroup version 1 and 2), instruction sets.
#include "runtime/processor.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <limits>
#include <sstream>
#include <string>

namespace longcat {
namespace {

int affinityCount() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1L, sysconf(_SC_NPROCESSORS_ONLN));
}

/// First number of a file; -1 if it has none ("max").
double firstNumber(const std::string& path) {
  std::ifstream file(path);
  double value = -1;
  if (!(file >> value)) return -1;
  return value;
}

/// This process's folder in the hierarchy that holds `controller` ("" for version 2).
std::string cgroupFolder(const std::string& controller) {
  std::ifstream file("/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string names = "," + line.substr(first + 1, second - first - 1) + ",";
    if (controller.empty() ? names == ",," : names.find("," + controller + ",") != std::string::npos) return line.substr(second + 1);
  }
  return "/";
}

/// Calls visit(folder) for the process's own cgroup folder and each one above it: every level limits.
template <class Visit>
void eachLevel(const std::string& mount, std::string folder, const Visit& visit) {
  for (;;) {
    visit(mount + (folder == "/" ? "" : folder));
    const size_t cut = folder.rfind('/');
    if (folder.size() <= 1 || cut == std::string::npos) break;
    folder = cut == 0 ? "/" : folder.substr(0, cut);
  }
}

/// Bytes of file cache in a memory.stat: the kernel gives them back when somebody needs memory. Keys as in version 2, or with total_ in 1.
double fileCache(const std::string& path, const std::string& prefix) {
  std::ifstream file(path);
  double bytes = 0, value = 0;
  for (std::string key; file >> key >> value;)
    if (key == prefix + "inactive_file" || key == prefix + "active_file") bytes += value;
  return bytes;
}

double quotaProcessors() {
  double least = std::numeric_limits<double>::infinity();
  eachLevel("/sys/fs/cgroup", cgroupFolder(""), [&](const std::string& folder) {
    std::ifstream file(folder + "/cpu.max");
    double quota = 0, period = 0;
    if (file >> quota >> period && quota > 0 && period > 0) least = std::min(least, quota / period);
  });
  eachLevel("/sys/fs/cgroup/cpu", cgroupFolder("cpu"), [&](const std::string& folder) {
    const double quota = firstNumber(folder + "/cpu.cfs_quota_us"), period = firstNumber(folder + "/cpu.cfs_period_us");
    if (quota > 0 && period > 0) least = std::min(least, quota / period);
  });
  return least;
}

}  // namespace

int availableThreads() {
  return std::max(1, static_cast<int>(std::min<double>(affinityCount(), quotaProcessors())));
}

bool supports(Isa isa) {
#if defined(__x86_64__) && !defined(LONGCAT_ONLY_PLAIN)
  // The compiler's run-time library also asks the operating system (xgetbv) whether it saves the wide registers.
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  if (isa == Isa::avx2) return avx2;
  if (isa == Isa::avx512) {
    return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  }
#endif
  return isa == Isa::plain;
}

Isa bestIsa() {
  if (supports(Isa::avx512)) return Isa::avx512;
  return supports(Isa::avx2) ? Isa::avx2 : Isa::plain;
}

const char* nameOf(Isa isa) {
  static const char* const names[] = {"plain", "avx2", "avx512", "cuda", "cuda-bf16"};
  return names[static_cast<int>(isa)];
}

int64_t availableMemory() {
  double available = std::numeric_limits<int64_t>::max() / 2.0;
  std::ifstream file("/proc/meminfo");
  for (std::string line; std::getline(file, line);) {
    long long kilobytes = 0;
    if (std::sscanf(line.c_str(), "MemAvailable: %lld kB", &kilobytes) == 1) available = kilobytes * 1024.0;
  }
  const auto limit = [&](double max, double used, double cached) {
    if (max >= 0 && used >= 0) available = std::min(available, std::max(0.0, max - used + std::min(used, cached)));
  };
  eachLevel("/sys/fs/cgroup", cgroupFolder(""), [&](const std::string& folder) {
    limit(firstNumber(folder + "/memory.max"), firstNumber(folder + "/memory.current"), fileCache(folder + "/memory.stat", ""));
  });
  eachLevel("/sys/fs/cgroup/memory", cgroupFolder("memory"), [&](const std::string& folder) {
    limit(firstNumber(folder + "/memory.limit_in_bytes"), firstNumber(folder + "/memory.usage_in_bytes"),
          fileCache(folder + "/memory.stat", "total_"));
  });
  return static_cast<int64_t>(available);
}

}  // namespace longcat
