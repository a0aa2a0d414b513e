#include "cuda/graph_edges.h"

#include <cstddef>
#include <map>
#include <set>
#include <vector>

#include "cuda/check.h"

namespace longcat {
namespace {

using Predecessors = std::map<cudaGraphNode_t, std::vector<cudaGraphNode_t>>;

/// Whether a way leads from `first` to `last`.
bool isBefore(const Predecessors& predecessors, cudaGraphNode_t first, cudaGraphNode_t last) {
  std::set<cudaGraphNode_t> seen;
  std::vector<cudaGraphNode_t> next{last};
  while (!next.empty()) {
    const cudaGraphNode_t node = next.back();
    next.pop_back();
    if (node == first) return true;
    const auto before = predecessors.find(node);
    if (before == predecessors.end()) continue;
    for (cudaGraphNode_t p : before->second)
      if (seen.insert(p).second) next.push_back(p);
  }
  return false;
}

#if CUDART_VERSION >= 13000
constexpr auto getEdges = cudaGraphGetEdges;
constexpr auto removeEdges = cudaGraphRemoveDependencies;
#else
constexpr auto getEdges = cudaGraphGetEdges_v2;
constexpr auto removeEdges = cudaGraphRemoveDependencies_v2;
#endif

}  // namespace

void removeImpliedEdges(cudaGraph_t graph) {
  size_t count = 0;
  LONGCAT_CUDA(getEdges(graph, nullptr, nullptr, nullptr, &count));
  if (count == 0) return;
  std::vector<cudaGraphNode_t> from(count), to(count);
  std::vector<cudaGraphEdgeData> data(count);
  LONGCAT_CUDA(getEdges(graph, from.data(), to.data(), data.data(), &count));

  Predecessors predecessors;
  for (size_t i = 0; i < count; ++i) predecessors[to[i]].push_back(from[i]);
  for (size_t i = 0; i < count; ++i) {
    for (cudaGraphNode_t other : predecessors[to[i]]) {
      if (other == from[i] || !isBefore(predecessors, from[i], other)) continue;
      LONGCAT_CUDA(removeEdges(graph, &from[i], &to[i], &data[i], 1));
      break;
    }
  }
}

}  // namespace longcat
