// Functions that are compiled for the host and, where a kernel includes them, for GPUs as well.
#pragma once

#ifdef __CUDACC__
#define LONGCAT_ANYWHERE __host__ __device__
#else
#define LONGCAT_ANYWHERE
#endif
