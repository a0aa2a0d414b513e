// The way of an exchange through NCCL (NcclWay, comm/window.h): what the operations' kernels have put into the outbox goes to the other ranks'
// windows, and theirs into this one's. On the host. A source's word of its rows travels as part of the data, so that who waits for it finds it there; no
// other flag is raised, since what the stream has next comes when all is there.
#pragma once

#include "cuda/context.h"
#include "ops/ep_combine/params.h"
#include "ops/ep_dispatch/params.h"

namespace longcat::cuda {

/// Rows, with their experts, weights and scales. With `counts` waits until the stream has come this far: the rest of what the host enqueues comes
/// later than it might. Throws COMM_ERROR.
void bringRows(const EpDispatchParams& p, const CudaContext& context);

/// Sums, of as many rows as bringRows has carried the other way.
void bringSums(const EpCombineParams& p, const CudaContext& context);

}  // namespace longcat::cuda
