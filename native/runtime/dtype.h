// Element types. The numbers are shared with ts/runtime/dtype.ts.
#pragma once

#include <cstddef>
#include <cstdint>

namespace longcat {

enum class DType : int32_t { f32 = 0, bf16 = 1, f8e4m3 = 2, i32 = 3, i64 = 4, f64 = 5, u8 = 6 };

constexpr size_t bytesOf(DType d) {
  switch (d) {
    case DType::f32: case DType::i32: return 4;
    case DType::bf16: return 2;
    case DType::f8e4m3: case DType::u8: return 1;
    case DType::i64: case DType::f64: return 8;
  }
  return 0;
}

/// Block FP8: an e4m3 matrix has an f32 scale for each kFp8Block rows × kFp8Block columns; the last blocks may be ragged.
constexpr int64_t kFp8Block = 128;
constexpr int64_t fp8Blocks(int64_t size) { return (size + kFp8Block - 1) / kFp8Block; }

constexpr const char* nameOf(DType d) {
  switch (d) {
    case DType::f32: return "float32";
    case DType::bf16: return "bfloat16";
    case DType::f8e4m3: return "float8_e4m3";
    case DType::i32: return "int32";
    case DType::i64: return "int64";
    case DType::f64: return "float64";
    case DType::u8: return "uint8";
  }
  return "?";
}

}  // namespace longcat
