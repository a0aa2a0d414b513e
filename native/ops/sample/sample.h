// The body of `sample`, the same for every instruction set.
#pragma once

#include "ops/op.h"
#include "ops/sample/params.h"

namespace longcat {

void sampleRows(const SampleParams& params, const CpuContext& context);

}  // namespace longcat
