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

/// From the innermost dimension on; strides, in bytes, from the second.
template <int RANK>
TensorMap encode(const void* data, int elementBytes, const cuuint64_t (&sizes)[RANK], const cuuint64_t (&strides)[RANK - 1], const cuuint32_t (&box)[RANK], int swizzleBytes) {
  cuuint32_t steps[RANK];
  for (cuuint32_t& step : steps) step = 1;
  const CUtensorMapDataType type = elementBytes == 1 ? CU_TENSOR_MAP_DATA_TYPE_UINT8 : CU_TENSOR_MAP_DATA_TYPE_UINT16;
  TensorMap map;
  const CUresult result = encoder()(&map, type, RANK, const_cast<void*>(data), sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
                                    swizzleOf(swizzleBytes), CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) throw std::runtime_error("cuTensorMapEncodeTiled failed with " + std::to_string(static_cast<int>(result)));
  return map;
}

cuuint64_t size(int64_t n) { return static_cast<cuuint64_t>(n); }

}  // namespace

TensorMap matrixMap(const void* data, int elementBytes, int64_t rows, int64_t columns, int64_t rowBytes, int boxRows, int boxColumns, int swizzleBytes) {
  const cuuint32_t box[] = {static_cast<cuuint32_t>(boxColumns), static_cast<cuuint32_t>(boxRows)};
  return encode<2>(data, elementBytes, {size(columns), size(rows)}, {size(rowBytes)}, box, swizzleBytes);
}

TensorMap pagesMap(const void* data, int64_t pages, int64_t rows, int64_t rowBytes, int64_t pageBytes, int boxRows) {
  const cuuint32_t box[] = {128, static_cast<cuuint32_t>(boxRows), 1};
  return encode<3>(data, 1, {size(rowBytes), size(rows), size(pages)}, {size(rowBytes), size(pageBytes)}, box, 128);
}

}  // namespace longcat::cuda
