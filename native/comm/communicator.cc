// Without a CUDA backend nobody joins; with it, cuda/communicator.cc does.
#include "comm/communicator.h"

#include "runtime/error.h"

namespace longcat {

#ifndef LONGCAT_HAS_CUDA
std::shared_ptr<Communicator> joinNccl(const Nccl&, int, int, int, const NcclId&) {
  throw Error("DEVICE_UNAVAILABLE", "NCCL joins GPUs, and this build has no CUDA backend");
}
#endif

}  // namespace longcat
