// Flags between ranks on the CPU (comm/window.h): raised in another rank's window, awaited in the own one.
#pragma once

#include <cstddef>
#include <cstdint>

namespace longcat {

/// Raises the flag at `offset` of a window: first `count`, then the number of the exchange; wakes who waits for it. What this thread has
/// written, and what it has seen written, is there for those who see the flag.
void raiseFlag(std::byte* window, size_t offset, int64_t exchange, int32_t count);

/// Waits for the flag that `source` raises for `exchange`; its count. Sleeps meanwhile: ranks may share their processors. `control` as in
/// ep_dispatch/params.h. Throws COMM_ERROR naming `source` once it says to give up.
int32_t awaitFlag(std::byte* window, size_t offset, int64_t exchange, int64_t source, int32_t* control);

/// The same for rows, of which at most `capacity` may come: COMM_ERROR if the ranks do not run the same program.
int32_t awaitRows(std::byte* window, int64_t exchange, int64_t source, int64_t capacity, int32_t* control);

}  // namespace longcat
