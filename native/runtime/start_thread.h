// Starting threads where the system may refuse.
#pragma once

#include <functional>
#include <thread>

namespace longcat {

/// Starts one of `wanted` threads, `running` of which run already. Throws DEVICE_UNAVAILABLE where the system starts no more.
std::thread startThread(std::function<void()> body, int running, int wanted);

}  // namespace longcat
