// timestamp on the CPU: the system's monotonic clock.
#include "ops/timestamp/params.h"

#include <chrono>

#include "ops/op.h"

namespace longcat::LONGCAT_ISA {

void timestamp(const void* params, const CpuContext&) {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  *static_cast<const TimestampParams*>(params)->out = std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
}

}  // namespace longcat::LONGCAT_ISA
