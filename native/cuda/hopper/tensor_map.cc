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

/// sizes and box from the innermost dimension on; strides, in bytes, from the second on.
TensorMap encode(const void* data, int elementBytes, int rank, const cuuint64_t* sizes, const cuuint64_t* strides, const cuuint32_t* box, int swizzleBytes) {
  const cuuint32_t steps[3] = {1, 1, 1};
  const CUtensorMapDataType type = elementBytes == 1 ? CU_TENSOR_MAP_DATA_TYPE_UINT8 : CU_TENSOR_MAP_DATA_TYPE_UINT16;
  TensorMap map;
  const CUresult result = encoder()(&map, type, rank, const_cast<void*>(data), sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
                                    swizzleOf(swizzleBytes), CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) throw std::runtime_error("cuTensorMapEncodeTiled failed with " + std::to_string(static_cast<int>(result)));
  return map;
}

}  // namespace

TensorMap matrixMap(const void* data, int elementBytes, int64_t rows, int64_t columns, int64_t rowBytes, int boxRows, int boxColumns, int swizzleBytes) {
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows)}, strides[1] = {static_cast<cuuint64_t>(rowBytes)};
  const cuuint32_t box[2] = {static_cast<cuuint32_t>(boxColumns), static_cast<cuuint32_t>(boxRows)};
  return encode(data, elementBytes, 2, sizes, strides, box, swizzleBytes);
}

TensorMap pileMap(const void* data, int elementBytes, int64_t planes, int64_t rows, int64_t columns, int64_t planeBytes, int64_t rowBytes, int boxRows,
                  int boxColumns, int swizzleBytes) {
  const cuuint64_t sizes[3] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows), static_cast<cuuint64_t>(planes)};
  const cuuint64_t strides[2] = {static_cast<cuuint64_t>(rowBytes), static_cast<cuuint64_t>(planeBytes)};
  const cuuint32_t box[3] = {static_cast<cuuint32_t>(boxColumns), static_cast<cuuint32_t>(boxRows), 1};
  return encode(data, elementBytes, 3, sizes, strides, box, swizzleBytes);
}

}  // namespace longcat::cuda
