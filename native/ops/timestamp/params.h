// timestamp: when the queue came here. out[0] = nanoseconds of the device's clock, from a beginning of its own; all that was enqueued before is over.
// For benchmarks: two of them tell what lies between, less what two that follow each other are apart (on a GPU some µs of launching). A GPU's
// clock advances in steps, of a microsecond on some cards, so that one difference says little and the mean over many is right.
#pragma once
#include <cstdint>
namespace longcat {

// tensors: out
struct TimestampParams {
  int64_t* out;  // [1]
};

}  // namespace longcat
