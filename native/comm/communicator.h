// Ranks' GPUs joined by NCCL, for what lies beyond windows that ranks write themselves: other hosts, or GPUs that cannot reach each other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "comm/nccl.h"

namespace longcat {

/// Bytes that go to another rank, or come from it.
struct Stretch {
  int64_t rank;
  std::byte* data;
  size_t bytes;
};

/// Threads: `exchange` belongs to the device's owner thread, the others to any.
class Communicator {
 public:
  virtual ~Communicator() = default;

  /// Enqueues the sends and receives on a CUDA stream, which may be under capture, as one group. What one rank sends another receives: between
  /// two ranks the same stretches of the same sizes in the same order. Throws COMM_ERROR.
  virtual void exchange(const std::vector<Stretch>& sends, const std::vector<Stretch>& receives, void* stream) = 0;

  /// Microseconds of an exchange of `bytes` to and from each other rank, one of many in a captured graph: what NCCL takes for no more than carrying.
  /// All ranks call it at the same time; it waits for them.
  virtual double measure(size_t bytes) = 0;
  /// Gives the communicator up: exchanges that wait for another rank end, with whatever bytes; later ones throw COMM_ERROR. Then gives its memory
  /// back, for which NCCL waits until all graphs are gone in which the communicator was captured: to be called on a thread that may wait, not on
  /// the device's owner thread. A second call does nothing.
  virtual void abort() = 0;
  /// What NCCL has noticed of its own accord, such as a connection that broke; empty: nothing.
  virtual std::string failure() = 0;
};

/// Joins rank `rank` of `ranks`, on that GPU; `id` is Nccl::uniqueId() of one of them. Waits until all have come, and until each has heard of
/// each, so that no exchange connects any more. Throws COMM_ERROR; DEVICE_UNAVAILABLE in a build without CUDA.
std::shared_ptr<Communicator> joinNccl(const Nccl& nccl, int gpu, int rank, int ranks, const NcclId& id);

}  // namespace longcat
