#include "cuda/outbox.h"

#include <string>
#include <vector>

#include "comm/communicator.h"
#include "cuda/check.h"

namespace longcat::cuda {
namespace {

constexpr size_t kCountOffset = offsetof(WindowFlag, count);

/// What goes out and comes in, between this rank and each other one.
class Parcels {
 public:
  Parcels(const NcclWay& way, std::byte* window, int64_t ranks, int64_t rank) : outbox_(way.outbox), window_(window), ranks_(ranks), rank_(rank) {}

  /// The flags that tell how many rows there are.
  void addFlags() {
    forOthers([&](int64_t r) { add(r, rowsFlagOffset(r), sizeof(WindowFlag), sizeof(WindowFlag)); });
  }

  /// The first rows of each rank's part of a region: sent(r) of them go, received(r) come.
  template <class Sent, class Received>
  void addRows(size_t offset, int64_t windowTokens, size_t rowBytes, const Sent& sent, const Received& received) {
    forOthers([&](int64_t r) {
      const size_t part = offset + static_cast<size_t>(r * windowTokens) * rowBytes;
      add(r, part, static_cast<size_t>(sent(r)) * rowBytes, static_cast<size_t>(received(r)) * rowBytes);
    });
  }

  void bring(const CudaContext& context) const {
    if (!context.communicator) throw Error("COMM_ERROR", "an exchange through NCCL on a device that has not joined the other ranks' (joinNccl)");
    context.communicator->exchange(sends_, receives_, context.stream);
  }

 private:
  template <class F>
  void forOthers(const F& f) const {
    for (int64_t r = 0; r < ranks_; ++r) {
      if (r != rank_) f(r);
    }
  }

  void add(int64_t r, size_t offset, size_t sent, size_t received) {
    if (sent > 0) sends_.push_back({r, outbox_ + offset, sent});
    if (received > 0) receives_.push_back({r, window_ + offset, received});
  }

  std::byte* outbox_;
  std::byte* window_;
  int64_t ranks_, rank_;
  std::vector<Stretch> sends_, receives_;
};

/// The counts of all flags of rows in a window or an outbox, to host memory.
void readCounts(const std::byte* from, int64_t ranks, int32_t* to, cudaStream_t stream) {
  LONGCAT_CUDA(cudaMemcpy2DAsync(to, sizeof(int32_t), from + rowsFlagOffset(0) + kCountOffset, kWindowLineBytes, sizeof(int32_t), static_cast<size_t>(ranks),
                                 cudaMemcpyDeviceToHost, stream));
}

/// Tells all ranks how many rows come, and waits until the host knows it too.
void tellCounts(const EpDispatchParams& p, const CudaContext& context) {
  Parcels flags(p.nccl, p.window, p.ranks, p.rank);
  flags.addFlags();
  flags.bring(context);
  readCounts(p.nccl.outbox, p.ranks, p.nccl.counts, context.stream);
  readCounts(p.window, p.ranks, p.nccl.counts + p.ranks, context.stream);
  LONGCAT_CUDA(cudaStreamSynchronize(context.stream));
  for (int64_t i = 0; i < 2 * p.ranks; ++i) {
    const int32_t count = p.nccl.counts[i];
    const int64_t r = i % p.ranks;
    if (r == p.rank || (count >= 0 && count <= p.capacity)) continue;
    throw Error("COMM_ERROR", std::to_string(count) + " rows " + (i < p.ranks ? "for" : "from") + " rank " + std::to_string(r) + " in a program of " +
                                  std::to_string(p.capacity) + ": the ranks do not run the same program");
  }
}

/// f(sent, received): how many rows go to a rank, and how many come from it.
template <class P, class F>
void withCounts(const P& p, const F& f) {
  const int32_t* counts = p.nccl.counts;
  const auto whole = [&](int64_t) { return p.capacity; };
  if (counts) f([=](int64_t r) { return counts[r]; }, [=, ranks = p.ranks](int64_t r) { return counts[ranks + r]; });
  else f(whole, whole);
}

}  // namespace

void bringRows(const EpDispatchParams& p, const CudaContext& context) {
  Parcels parcels(p.nccl, p.window, p.ranks, p.rank);
  if (p.nccl.counts) tellCounts(p, context);
  else parcels.addFlags();
  const size_t width = static_cast<size_t>(p.width), slots = static_cast<size_t>(p.slots);
  withCounts(p, [&](const auto& sent, const auto& received) {
    const auto region = [&](size_t offset, size_t rowBytes) { parcels.addRows(offset, p.windowTokens, rowBytes, sent, received); };
    region(p.layout.rows, width * (p.fp8 ? 1 : bytesOf(p.activation)));
    if (p.fp8) region(p.layout.scales, static_cast<size_t>(fp8Blocks(p.width)) * sizeof(float));
    region(p.layout.ids, slots * sizeof(int32_t));
    region(p.layout.weights, slots * sizeof(float));
  });
  parcels.bring(context);
}

void bringSums(const EpCombineParams& p, const CudaContext& context) {
  Parcels parcels(p.nccl, p.window, p.ranks, p.rank);
  withCounts(p, [&](const auto& sent, const auto& received) {
    // Sums go where rows came from, and come from where rows went.
    parcels.addRows(p.layout.sums, p.windowTokens, static_cast<size_t>(p.width) * bytesOf(p.activation), received, sent);
  });
  parcels.bring(context);
}

}  // namespace longcat::cuda
