// sample on the CPU: one body for every instruction set (sample.h), since a draw must not depend on it.
#include "ops/sample/sample.h"

namespace longcat::LONGCAT_ISA {

void sample(const void* params, const CpuContext& context) { sampleRows(*static_cast<const SampleParams*>(params), context); }

}  // namespace longcat::LONGCAT_ISA
