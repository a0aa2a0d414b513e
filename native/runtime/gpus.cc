// Without a CUDA backend there are no GPUs; with it, native/cuda/gpus.cc asks the driver.
#include "runtime/gpus.h"

namespace longcat {

#ifndef LONGCAT_HAS_CUDA
GpuList listGpus() { return {{}, "this build has no CUDA backend (LONGCAT_CUDA=OFF, or no nvcc new enough was found)"}; }
#endif

}  // namespace longcat
