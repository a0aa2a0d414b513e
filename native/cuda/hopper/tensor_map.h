// Descriptions of tensors for Hopper's copy engine, made on the host, passed to kernels by value (const __grid_constant__ TensorMap).
#pragma once

#include <cuda.h>

#include <cstdint>

namespace longcat::cuda {

using TensorMap = CUtensorMap;

/// Rows of a matrix in memory: [rows, columns] with `rowBytes` from one to the next (a multiple of 16, the address too), read in boxes of
/// boxRows × boxColumns. `elementBytes` 1 or 2 (whatever they mean). A swizzled box has rows of at most `swizzleBytes` (128, 64, 32; 0: none).
TensorMap matrixMap(const void* data, int elementBytes, int64_t rows, int64_t columns, int64_t rowBytes, int boxRows, int boxColumns, int swizzleBytes);

/// Pages of rows of bytes: [pages, rows, rowBytes], dense but for `pageBytes` from one page to the next (row and page multiples of 16 bytes), read in boxes of boxRows × 128 bytes
/// with the 128-byte swizzle.
TensorMap pagesMap(const void* data, int64_t pages, int64_t rows, int64_t rowBytes, int64_t pageBytes, int boxRows);

}  // namespace longcat::cuda
