// Conversion of weights: f32, bf16 and block FP8 to f32 or bf16.
#include "runtime/convert.h"

#include <cstring>
#include <string>

#include "runtime/error.h"
#include "runtime/float_formats.h"
#include "runtime/memory.h"

namespace longcat {
namespace {

struct E4m3Table {
  float value[256];
  E4m3Table() {
    for (int code = 0; code < 256; ++code) value[code] = floatOfE4m3(static_cast<uint8_t>(code));
  }
};

/// One matrix of the source and where it goes.
struct Part {
  const std::byte* from;
  const float* scale;
  std::byte* to;
};

void convertRow(const Tensor& from, const Tensor& to, const Part& part, int64_t row, int64_t columns, const E4m3Table& e4m3) {
  const int64_t at = row * columns, blocks = fp8Blocks(columns);
  for (int64_t c = 0; c < columns; ++c) {
    float value = 0;
    switch (from.dtype) {
      case DType::f32: std::memcpy(&value, part.from + (at + c) * 4, 4); break;
      case DType::bf16: {
        uint16_t bits;
        std::memcpy(&bits, part.from + (at + c) * 2, 2);
        value = floatOfBf16(bits);
        break;
      }
      default: value = e4m3.value[static_cast<uint8_t>(part.from[at + c])] * part.scale[row / kFp8Block * blocks + c / kFp8Block];
    }
    if (to.dtype == DType::f32) reinterpret_cast<float*>(part.to)[at + c] = value;
    else reinterpret_cast<uint16_t*>(part.to)[at + c] = bf16OfFloat(value);
  }
}

int matrixDimension(const Tensor& tensor) { return tensor.parts || tensor.rank == 3 ? 1 : 0; }

}  // namespace

void requireConvertible(const Tensor& from, const Tensor* scale, DType dtype) {
  require(dtype == DType::f32 || dtype == DType::bf16, std::string("cannot convert to ") + nameOf(dtype));
  const bool fp8 = from.dtype == DType::f8e4m3;
  require(fp8 || from.dtype == DType::f32 || from.dtype == DType::bf16, std::string("cannot convert from ") + nameOf(from.dtype));
  require(from.parts || from.contiguous(), "cannot convert a view of columns");
  require(fp8 == (scale != nullptr), fp8 ? "a float8_e4m3 weight cannot be converted without its scales" : "scales belong to float8_e4m3 alone");
  if (fp8) {
    const int d = matrixDimension(from);
    require(from.rank == d + 2 && scale->rank == d + 2 && scale->dtype == DType::f32 && (d == 0 || scale->shape[0] == from.shape[0]) &&
                scale->shape[d] == fp8Blocks(from.shape[d]) && scale->shape[d + 1] == fp8Blocks(from.shape[d + 1]) &&
                (scale->parts || scale->contiguous()),
            "the scales do not have the shape of the weight's blocks");
  }
}

void splitParts(Tensor& tensor) {
  auto parts = std::make_shared<std::vector<const std::byte*>>();
  const size_t bytes = tensor.shape[0] ? spanBytes(tensor) / static_cast<size_t>(tensor.shape[0]) : 0;
  for (int64_t i = 0; i < tensor.shape[0]; ++i) parts->push_back(tensor.data + static_cast<size_t>(i) * bytes);
  tensor.parts = std::move(parts);
  tensor.data = nullptr;
}

void convertInto(const Tensor& from, const Tensor* scale, const Tensor& to, ThreadPool& pool) {
  static const E4m3Table e4m3;
  const int d = matrixDimension(from);
  const int64_t count = d ? from.shape[0] : 1;
  const int64_t columns = from.shape[from.rank - 1];
  const int64_t rows = count && columns ? from.elements() / count / columns : 0;
  const auto partAt = [&](int64_t i) {
    Part part{};
    const size_t elements = static_cast<size_t>(rows * columns);
    part.from = from.parts ? (*from.parts)[static_cast<size_t>(i)] : from.data + static_cast<size_t>(i) * elements * bytesOf(from.dtype);
    part.to = to.parts ? const_cast<std::byte*>((*to.parts)[static_cast<size_t>(i)]) : to.data + static_cast<size_t>(i) * elements * bytesOf(to.dtype);
    if (scale) {
      const size_t blocks = static_cast<size_t>(scale->elements() / count) * sizeof(float);
      part.scale = reinterpret_cast<const float*>(scale->parts ? (*scale->parts)[static_cast<size_t>(i)] : scale->data + static_cast<size_t>(i) * blocks);
    }
    return part;
  };
  pool.parallelFor(count * rows, [&](int64_t task, int) { convertRow(from, to, partAt(task / rows), task % rows, columns, e4m3); });
}

}  // namespace longcat
