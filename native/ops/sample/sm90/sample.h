// sample on compute capability 9.0: several blocks share a row.
#pragma once

#include "cuda/context.h"
#include "ops/sample/params.h"

namespace longcat::cuda {

/// Launches the kernel that shares rows among the blocks of clusters. False, and nothing is launched, where the card or the vocabulary is not
/// for it. The same tokens, to the bit, as one block a row gives.
bool sampleByClusters(const SampleParams& params, const CudaContext& context);

}  // namespace longcat::cuda
