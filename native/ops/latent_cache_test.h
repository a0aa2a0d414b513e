// What tests of the operations over a packed latent cache share: making one of numbers, and numbers of one.
#pragma once

#include <cmath>
#include <cstring>
#include <vector>

#include "ops/harness.h"
#include "ops/latent_cache.h"
#include "runtime/float_formats.h"

namespace longcat {

/// What a packed row stands for.
inline std::vector<float> unpackedRow(const PackedRow<const uint8_t>& row, int64_t rank, int64_t rope) {
  std::vector<float> values;
  for (int64_t k = 0; k < rank; ++k) values.push_back(floatOfE4m3(row.codes[k]) * reinterpret_cast<const float*>(row.scales)[k / kFp8Block]);
  for (int64_t k = 0; k < rope; ++k) values.push_back(floatOfBf16(reinterpret_cast<const uint16_t*>(row.ropeKey)[k]));
  return values;
}

/// The rows of a packed cache, [rows, rank + rope].
inline std::vector<float> unpackedCache(const Tensor& cache, const PackedLatents& layout) {
  std::vector<float> values;
  for (int64_t row = 0; row < cache.shape[0] * cache.shape[1]; ++row) {
    const std::vector<float> of = unpackedRow(layout.at(reinterpret_cast<const uint8_t*>(cache.data), row), layout.rank, layout.rope);
    values.insert(values.end(), of.begin(), of.end());
  }
  return values;
}

/// A cache of these rows, [blocks · blockSize, rank + rope]. A row that begins with NaN is NaN throughout.
inline Tensor packedCache(OpContext& t, const std::vector<float>& rows, int64_t blocks, const PackedLatents& layout) {
  const Tensor cache = t.empty(DType::u8, {blocks, layout.blockSize, layout.rowBytes()});
  std::memset(cache.data, 0xff, static_cast<size_t>(cache.elements()));
  const int64_t width = layout.rank + layout.rope;
  for (int64_t row = 0; row < blocks * layout.blockSize; ++row) {
    const float* from = rows.data() + row * width;
    if (!std::isnan(from[0])) packRow(from, layout.rank, layout.rope, layout.at(reinterpret_cast<uint8_t*>(cache.data), row));
  }
  return cache;
}

/// The rows as a packed cache keeps them. Packed again they stay the same.
inline std::vector<float> packedAndBack(const std::vector<float>& rows, int64_t rank, int64_t rope) {
  const PackedLatents layout{rank, rope, 1};
  std::vector<uint8_t> bytes(static_cast<size_t>(layout.rowBytes()) + 16);
  uint8_t* const row = bytes.data() + (-reinterpret_cast<uintptr_t>(bytes.data()) & 15);
  std::vector<float> back;
  for (size_t first = 0; first < rows.size(); first += static_cast<size_t>(rank + rope)) {
    packRow(rows.data() + first, rank, rope, layout.at(row, 0));
    const std::vector<float> values = unpackedRow(layout.at(static_cast<const uint8_t*>(row), 0), rank, rope);
    back.insert(back.end(), values.begin(), values.end());
  }
  return back;
}

}  // namespace longcat
