// The edges of a captured graph.
#pragma once

#include <cuda_runtime_api.h>

namespace longcat {

/// Takes away each edge between two nodes that a longer way joins as well. A stream that leaves another, comes back and leaves it again is captured
/// with such edges: from what it did last to its next kernel, although the other stream has waited for the one and begun the other. A kernel
/// with two edges like that, into it or out of it, does not begin before its predecessor has ended (dependent.cuh).
///
/// Order stays: every kernel waits for its predecessors, and they for theirs.
void removeImpliedEdges(cudaGraph_t graph);

}  // namespace longcat
