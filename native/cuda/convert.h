// Weights from one dtype to another on the device: the same bits as runtime/convert.cc makes on the host.
#pragma once

#include <cstdint>

#include "cuda/context.h"
#include "runtime/dtype.h"

namespace longcat::cuda {

/// to = from × scale, rounded once to nearest, ties to even. Launches on the context's stream; throws INTERNAL for other dtypes.
/// from: [rows, columns] dense, f32, bf16 or f8e4m3. to: the same shape, f32 or bf16; it may not overlap `from`.
/// scale: [fp8Blocks(rows), fp8Blocks(columns)] f32 where `from` is f8e4m3, else null. All three in device memory.
void convertOnDevice(const CudaContext& context, const void* from, DType fromDtype, const float* scale, int64_t rows, int64_t columns, void* to,
                     DType toDtype);

}  // namespace longcat::cuda
