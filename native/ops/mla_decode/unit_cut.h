// How a step's rows are cut for Hopper's attention (units.cuh does it): what attends and what merges must be told alike.
#pragma once

#include <cstdint>

#include "cuda/context.h"
#include "ops/mla_decode/params.h"

namespace longcat::cuda {

/// A unit has `grain` keys, or as often twice of that as leaves a row with at most `most` units; the last one has what is left.
struct UnitRule {
  int32_t grain, most;
};
constexpr UnitRule kSmallUnits{256, 32}, kUnits{512, 32};  // small ones where a block pays little for each (sm90/key_rows)
static_assert(kSmallUnits.grain % kSplitKeys == 0 && kUnits.grain % kSplitKeys == 0);  // no more than entries of the split list: `partial` has room for them

struct UnitCut {
  UnitRule rule;
  int32_t heads;   // of a block
  int32_t shares;  // blocks of each group of so many heads
  bool pieces;     // rows are cut as suits the batch; otherwise in units by their length alone
};

/// How this card cuts.
UnitCut unitCut(const CudaContext& context, const MlaDecodeParams& p);

}  // namespace longcat::cuda
