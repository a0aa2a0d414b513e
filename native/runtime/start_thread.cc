// Starting threads (start_thread.h).
#include "runtime/start_thread.h"

#include <string>
#include <system_error>
#include <utility>

#include "runtime/error.h"

namespace longcat {

std::thread startThread(std::function<void()> body, int running, int wanted) {
  try {
    return std::thread(std::move(body));
  } catch (const std::system_error&) {
    const std::string limit = "this system lets the process start ";
    if (running == 0) throw Error("DEVICE_UNAVAILABLE", limit + "no more threads: raise its limit (ulimit -u; a container's limit of processes)");
    throw Error("DEVICE_UNAVAILABLE", limit + "only " + std::to_string(running) + " of " + std::to_string(wanted) +
                                          " threads; give threads: " + std::to_string(running));
  }
}

}  // namespace longcat
