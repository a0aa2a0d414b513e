// ngram_embed of few rows on capability 9.0.
#pragma once

#include "cuda/context.h"
#include "ops/ngram_embed/params.h"

namespace longcat::cuda {

/// Launches the kernel for few rows; false, and nothing is launched, where rows, sizes or the card are not for it. Dtypes and addresses are those of
/// tensor cores; kWhole: every table is aligned to 16 bytes. The bits are those of many rows.
template <bool kWhole>
bool embedFewRows(const CudaContext& context, const NgramEmbedParams& params);

}  // namespace longcat::cuda
