// The communicator of comm/communicator.h, over NCCL.
#include "comm/communicator.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <atomic>
#include <mutex>

#include "cuda/check.h"
#include "cuda/events.h"

namespace longcat {
namespace {

/// A stream, and memory for `bytes` to each other rank and from it, apart from all that the device does.
struct Trial {
  cudaStream_t stream = nullptr;
  std::byte* memory = nullptr;
  std::vector<Stretch> sends, receives;

  Trial(int gpu, int rank, int ranks, size_t bytes) {
    LONGCAT_CUDA(cudaSetDevice(gpu));
    LONGCAT_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    const size_t all = bytes * static_cast<size_t>(ranks);
    LONGCAT_CUDA(cudaMalloc(reinterpret_cast<void**>(&memory), 2 * all));
    LONGCAT_CUDA(cudaMemsetAsync(memory, 0x5a, 2 * all, stream));
    for (int r = 0; r < ranks; ++r) {
      if (r == rank) continue;
      sends.push_back({r, memory + bytes * static_cast<size_t>(r), bytes});
      receives.push_back({r, memory + all + bytes * static_cast<size_t>(r), bytes});
    }
  }
  ~Trial() {
    cudaFree(memory);
    cudaStreamDestroy(stream);
  }
  Trial(const Trial&) = delete;
  Trial& operator=(const Trial&) = delete;
};

class NcclCommunicator final : public Communicator {
 public:
  NcclCommunicator(const Nccl& nccl, int gpu, int rank, int ranks, const NcclId& id) : nccl_(nccl), gpu_(gpu), rank_(rank), ranks_(ranks) {
    LONGCAT_CUDA(cudaSetDevice(gpu));
    LONGCAT_NCCL(nccl_, ncclCommInitRank(&communicator_, ranks, id, rank));
  }

  /// A byte from each to each. NCCL connects two ranks when they first speak, which is a wait for the other one in the middle of a call.
  void connect() {
    const Trial trial(gpu_, rank_, ranks_, 1);
    exchange(trial.sends, trial.receives, trial.stream);
    LONGCAT_CUDA(cudaStreamSynchronize(trial.stream));
  }

  void exchange(const std::vector<Stretch>& sends, const std::vector<Stretch>& receives, void* stream) override {
    const std::lock_guard<std::mutex> lock(calls_);
    if (ended_.load()) throw Error("COMM_ERROR", "the exchange between ranks was given up");
    LONGCAT_NCCL(nccl_, ncclGroupStart());
    try {
      for (const Stretch& s : sends) LONGCAT_NCCL(nccl_, ncclSend(s.data, s.bytes, kNcclBytes, static_cast<int>(s.rank), communicator_, stream));
      for (const Stretch& s : receives) LONGCAT_NCCL(nccl_, ncclRecv(s.data, s.bytes, kNcclBytes, static_cast<int>(s.rank), communicator_, stream));
    } catch (...) {
      nccl_->ncclGroupEnd();
      throw;
    }
    LONGCAT_NCCL(nccl_, ncclGroupEnd());
  }

  double measure(size_t bytes) override;

  void abort() override {
    if (ended_.exchange(true)) return;
    // NCCL frees the communicator under whoever is in a call with it. Calls only enqueue, so this is not a wait for another rank; whoever comes
    // behind it finds that it has ended. Nobody is kept waiting meanwhile: the owner thread has graphs to destroy, for which NCCL waits here.
    { const std::lock_guard<std::mutex> last(calls_); }
    nccl_->ncclCommAbort(communicator_);
  }

  std::string failure() override {
    const std::unique_lock<std::mutex> lock(calls_, std::try_to_lock);
    if (!lock || ended_.load()) return {};
    int error = 0;
    const int result = nccl_->ncclCommGetAsyncError(communicator_, &error);
    if (result == 0 && error == 0) return {};
    return nccl_.describe(result ? result : error, "NCCL's communicator");
  }

 private:
  const Nccl& nccl_;
  const int gpu_, rank_, ranks_;
  ncclComm* communicator_ = nullptr;
  std::mutex calls_;  // of NCCL's functions with the communicator
  std::atomic<bool> ended_{false};
};

double NcclCommunicator::measure(size_t bytes) {
  constexpr int kExchanges = 10, kReplays = 31;
  const Trial trial(gpu_, rank_, ranks_, std::max<size_t>(bytes, 1));
  LONGCAT_CUDA(cudaStreamBeginCapture(trial.stream, cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < kExchanges; ++i) exchange(trial.sends, trial.receives, trial.stream);
  cudaGraph_t captured = nullptr;
  LONGCAT_CUDA(cudaStreamEndCapture(trial.stream, &captured));
  const std::unique_ptr<CUgraph_st, decltype(&cudaGraphDestroy)> nodes(captured, cudaGraphDestroy);
  cudaGraphExec_t made = nullptr;
  LONGCAT_CUDA(cudaGraphInstantiate(&made, captured, 0));
  const std::unique_ptr<CUgraphExec_st, decltype(&cudaGraphExecDestroy)> graph(made, cudaGraphExecDestroy);
  std::vector<float> milliseconds(kReplays);
  for (float& ms : milliseconds) {
    const TimedEvent before, after;
    LONGCAT_CUDA(cudaEventRecord(before, trial.stream));
    LONGCAT_CUDA(cudaGraphLaunch(graph.get(), trial.stream));
    LONGCAT_CUDA(cudaEventRecord(after, trial.stream));
    LONGCAT_CUDA(cudaEventSynchronize(after));
    LONGCAT_CUDA(cudaEventElapsedTime(&ms, before, after));
  }
  std::nth_element(milliseconds.begin(), milliseconds.begin() + kReplays / 2, milliseconds.end());
  return static_cast<double>(milliseconds[kReplays / 2]) * 1000 / kExchanges;
}

}  // namespace

std::shared_ptr<Communicator> joinNccl(const Nccl& nccl, int gpu, int rank, int ranks, const NcclId& id) {
  auto communicator = std::make_shared<NcclCommunicator>(nccl, gpu, rank, ranks, id);
  try {
    communicator->connect();
  } catch (...) {
    communicator->abort();
    throw;
  }
  return communicator;
}

}  // namespace longcat
