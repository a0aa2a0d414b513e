// Every CUDA call is checked: LONGCAT_CUDA(cudaMemsetAsync(…)) throws Error("CUDA_ERROR") (or "OUT_OF_MEMORY", where
// that is what CUDA says) with the call, the file and line, and CUDA's words.
#pragma once

#include <cuda_runtime_api.h>

#include <string>

#include "runtime/error.h"

namespace longcat {

[[noreturn]] inline void throwCuda(cudaError_t error, const char* what, const char* file, int line) {
  std::string path(file);
  const size_t native = path.rfind("native/");
  if (native != std::string::npos) path.erase(0, native);
  const char* code = error == cudaErrorMemoryAllocation ? "OUT_OF_MEMORY" : "CUDA_ERROR";
  throw Error(code, std::string(what) + " at " + path + ":" + std::to_string(line) + ": " + cudaGetErrorName(error) + ": " + cudaGetErrorString(error));
}

inline void checkCuda(cudaError_t error, const char* what, const char* file, int line) {
  if (error != cudaSuccess) throwCuda(error, what, file, line);
}

}  // namespace longcat

#define LONGCAT_CUDA(call) ::longcat::checkCuda((call), #call, __FILE__, __LINE__)
