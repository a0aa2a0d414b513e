// sample on compute capability 9.0: as many blocks of a cluster share a row as leave each thread a few logits (together.cuh).
#include "ops/sample/sm90/sample.h"

#include "cuda/dependent.cuh"
#include "cuda/launch.cuh"
#include "ops/sample/sm90/together.cuh"

namespace longcat::cuda {
namespace {

__global__ void __launch_bounds__(kThreads, 1) sampleTogetherKernel(const __grid_constant__ SampleParams p, int depth) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  awaitPrevious();
  letNextBegin();
  extern __shared__ __align__(16) unsigned char memory[];
  auto& together = *reinterpret_cast<Together*>(memory);
  const int64_t i = blockIdx.x / clusterSize(), r = p.rows[0] + i;
  const bool isFirst = clusterRank() == 0;
  if (r >= p.rows[1]) return;
  const DrawPlace place = drawPlace(p, r);
  if (!place.isLive) {
    if (isFirst) leaveNothing(p, i);
    return;
  }
  together.begin(p, r, place.position, reinterpret_cast<float4*>(memory + sizeof(Together)), depth);
  int32_t token = together.token(p);
  if (!isFirst) return;
  if (token == kUndecided) token = chooseToken(p, i, together.block);
  leaveToken(p, r, i, token, together.block);
#endif
}

/// Blocks of a cluster: many where there are few rows, if each thread then has a quad; else as few as hold a row's logits.
struct Shape {
  unsigned blocks = 1;
  int depth;  // quads of a thread
  Shape(const SampleParams& p, int mostDepth) {
    const int64_t quads = ceilDiv(p.vocabulary, 4), wanted = p.mostRows <= 16 ? kMostBlocks : p.mostRows <= 32 ? kMostBlocks / 2 : 1;
    const auto depthOf = [&](int64_t n) { return ceilDiv(quads, n * kThreads); };
    while (blocks < kMostBlocks && (depthOf(blocks) > mostDepth || (blocks < wanted && quads >= 2 * blocks * kThreads))) blocks *= 2;
    depth = static_cast<int>(std::min<int64_t>(depthOf(blocks), mostDepth + 1));
  }
};

}  // namespace

bool sampleByClusters(const SampleParams& p, const CudaContext& context) {
  constexpr int kBytesOfDepth = kThreads * sizeof(float4);
  static_assert(sizeof(Together) + 8 * kBytesOfDepth <= 227 << 10, "four blocks hold a row of 131072 logits");
  const int mostDepth = (context.sharedBytes - static_cast<int>(sizeof(Together))) / kBytesOfDepth;
  if (context.capability != 90 || mostDepth < 1) return false;
  const Shape shape(p, mostDepth);
  if (shape.depth > mostDepth) return false;
  const LaunchShape clusters{dim3(static_cast<unsigned>(p.mostRows) * shape.blocks), kThreads, sizeof(Together) + static_cast<size_t>(shape.depth) * kBytesOfDepth,
                             static_cast<unsigned>(shape.blocks)};
  launch(context, sampleTogetherKernel, clusters, p, shape.depth);
  return true;
}

}  // namespace longcat::cuda
