// What this process may use of its machine: processors, instruction sets, memory.
#pragma once

#include <cstdint>

#include "ops/op.h"

namespace longcat {

/// Processors within the affinity mask and the container's quota (rounded down, at least 1).
int availableThreads();

/// Whether processor and operating system both support the instruction set, and this build has it. Never those that stand for a GPU.
bool supports(Isa isa);
Isa bestIsa();
const char* nameOf(Isa isa);

/// Bytes that could be allocated now: the machine's available memory within the container's limit, file cache counted as available.
int64_t availableMemory();

}  // namespace longcat
