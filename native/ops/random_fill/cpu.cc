// random_fill on the CPU.
#include "ops/random_fill/params.h"

#include "cpu/math.h"
#include "ops/random_fill/uniform.h"

namespace longcat::LONGCAT_ISA {
namespace {

LONGCAT_INLINE void store(float value, float* to) { *to = value; }
LONGCAT_INLINE void store(float value, uint16_t* to) { *to = fill::bf16Of(value); }
LONGCAT_INLINE void store(float value, uint8_t* to) { *to = fill::e4m3Of(value); }

/// Elements [first, end). T: float, uint16_t (bf16's bits) or uint8_t (e4m3 codes).
template <class T>
void fillRange(const RandomFillParams p, int64_t first, int64_t end) {
  T* out = static_cast<T*>(p.out);
  for (int64_t i = first; i < end; ++i) store(fill::valueAt(p, i), out + i);
}

}  // namespace

void random_fill(const void* params, const CpuContext& context) {
  const auto& p = *static_cast<const RandomFillParams*>(params);
  forRows(context, p.elements, 4, [&](int64_t first, int64_t end, int) {
    if (p.dtype == DType::bf16) fillRange<uint16_t>(p, first, end);
    else if (p.dtype == DType::f8e4m3) fillRange<uint8_t>(p, first, end);
    else fillRange<float>(p, first, end);
  });
}

}  // namespace longcat::LONGCAT_ISA
