// CUDA events: marks of how far a stream has come, used again and again; and of when.
#pragma once

#include <cuda_runtime_api.h>

#include <vector>

#include "cuda/check.h"

namespace longcat {

/// Belongs to one thread.
class EventPool {
 public:
  EventPool() = default;
  ~EventPool() {
    for (cudaEvent_t event : spare_) cudaEventDestroy(event);
  }
  EventPool(const EventPool&) = delete;
  EventPool& operator=(const EventPool&) = delete;

  /// An event that passes when all that `stream` has been given so far is done.
  cudaEvent_t record(cudaStream_t stream) {
    cudaEvent_t event = nullptr;
    if (spare_.empty()) {
      LONGCAT_CUDA(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    } else {
      event = spare_.back();
      spare_.pop_back();
    }
    const cudaError_t error = cudaEventRecord(event, stream);
    if (error != cudaSuccess) spare_.push_back(event);
    LONGCAT_CUDA(error);
    return event;
  }
  void giveBack(cudaEvent_t event) { spare_.push_back(event); }

 private:
  std::vector<cudaEvent_t> spare_;
};

/// An event that knows its time.
class TimedEvent {
 public:
  TimedEvent() { LONGCAT_CUDA(cudaEventCreate(&event_)); }
  ~TimedEvent() { cudaEventDestroy(event_); }
  TimedEvent(const TimedEvent&) = delete;
  TimedEvent& operator=(const TimedEvent&) = delete;
  operator cudaEvent_t() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

/// A query's answer. "Not yet" is no error, and may not stay behind as the thread's last one, which launches look at.
inline cudaError_t answerOf(cudaError_t queried) {
  if (queried == cudaErrorNotReady) cudaGetLastError();
  return queried;
}

}  // namespace longcat
