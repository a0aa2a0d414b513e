// The driver makes tensor maps; it is asked for the function by name, so that nothing links against it.
#include "cuda/hopper/tensor_map.h"

#include <cuda_runtime_api.h>

#include <stdexcept>
#include <string>

#include "cuda/check.h"

namespace longcat::cuda {
namespace {

using Encode = decltype(&cuTensorMapEncodeTiled);

Encode encoder() {
  static const Encode function = [] {
    void* symbol = nullptr;
    cudaDriverEntryPointQueryResult found{};
    LONGCAT_CUDA(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &symbol, 12000, cudaEnableDefault, &found));
    if (found != cudaDriverEntryPointSuccess || !symbol) throw std::runtime_error("the driver has no cuTensorMapEncodeTiled");
    return reinterpret_cast<Encode>(symbol);
  }();
  return function;
}

CUtensorMapSwizzle swizzleOf(int bytes) {
  switch (bytes) {
    case 128: return CU_TENSOR_MAP_SWIZZLE_128B;
    case 64: return CU_TENSOR_MAP_SWIZZLE_64B;
    case 32: return CU_TENSOR_MAP_SWIZZLE_32B;
    default: return CU_TENSOR_MAP_SWIZZLE_NONE;
  }
}

}  // namespace

TensorMap matrixMap(const void* data, int elementBytes, int64_t rows, int64_t columns, int64_t rowBytes, int boxRows, int boxColumns, int swizzleBytes) {
  // From the innermost dimension on; strides, in bytes, from the second.
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows)}, strides[1] = {static_cast<cuuint64_t>(rowBytes)};
  const cuuint32_t box[2] = {static_cast<cuuint32_t>(boxColumns), static_cast<cuuint32_t>(boxRows)}, steps[2] = {1, 1};
  const CUtensorMapDataType type = elementBytes == 1 ? CU_TENSOR_MAP_DATA_TYPE_UINT8 : CU_TENSOR_MAP_DATA_TYPE_UINT16;
  TensorMap map;
  const CUresult result = encoder()(&map, type, 2, const_cast<void*>(data), sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
                                    swizzleOf(swizzleBytes), CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) throw std::runtime_error("cuTensorMapEncodeTiled failed with " + std::to_string(static_cast<int>(result)));
  return map;
}

}  // namespace longcat::cuda
