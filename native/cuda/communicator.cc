// The communicator of comm/communicator.h, over NCCL.
#include "comm/communicator.h"

#include <cuda_runtime_api.h>

#include <atomic>
#include <mutex>

#include "cuda/check.h"

namespace longcat {
namespace {

class NcclCommunicator final : public Communicator {
 public:
  NcclCommunicator(const Nccl& nccl, int gpu, int rank, int ranks, const NcclId& id) : nccl_(nccl), rank_(rank), ranks_(ranks) {
    LONGCAT_CUDA(cudaSetDevice(gpu));
    LONGCAT_NCCL(nccl_, commInitRank(&communicator_, ranks, id, rank));
  }

  /// A byte from each to each. NCCL connects two ranks when they first speak, which is a wait for the other one in the middle of a call.
  void connect() {
    cudaStream_t stream = nullptr;
    std::byte* bytes = nullptr;
    LONGCAT_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    LONGCAT_CUDA(cudaMalloc(reinterpret_cast<void**>(&bytes), static_cast<size_t>(ranks_) * 2));
    std::vector<Stretch> sends, receives;
    for (int r = 0; r < ranks_; ++r) {
      if (r == rank_) continue;
      sends.push_back({r, bytes + r, 1});
      receives.push_back({r, bytes + ranks_ + r, 1});
    }
    exchange(sends, receives, stream);
    LONGCAT_CUDA(cudaStreamSynchronize(stream));
    LONGCAT_CUDA(cudaFree(bytes));
    LONGCAT_CUDA(cudaStreamDestroy(stream));
  }

  void exchange(const std::vector<Stretch>& sends, const std::vector<Stretch>& receives, void* stream) override {
    const std::lock_guard<std::mutex> lock(calls_);
    if (ended_.load()) throw Error("COMM_ERROR", "the exchange between ranks was given up");
    LONGCAT_NCCL(nccl_, groupStart());
    try {
      for (const Stretch& s : sends) LONGCAT_NCCL(nccl_, send(s.data, s.bytes, kNcclBytes, static_cast<int>(s.rank), communicator_, stream));
      for (const Stretch& s : receives) LONGCAT_NCCL(nccl_, recv(s.data, s.bytes, kNcclBytes, static_cast<int>(s.rank), communicator_, stream));
    } catch (...) {
      nccl_->groupEnd();
      throw;
    }
    LONGCAT_NCCL(nccl_, groupEnd());
  }

  void abort() override {
    if (ended_.exchange(true)) return;
    // NCCL frees the communicator under whoever is in a call with it. Calls only enqueue, so this is not a wait for another rank.
    const std::lock_guard<std::mutex> lock(calls_);
    nccl_->commAbort(communicator_);
  }

  std::string failure() override {
    const std::unique_lock<std::mutex> lock(calls_, std::try_to_lock);
    if (!lock || ended_.load()) return {};
    int error = 0;
    const int result = nccl_->commGetAsyncError(communicator_, &error);
    if (result == 0 && error == 0) return {};
    return nccl_.describe(result ? result : error, "NCCL's communicator");
  }

 private:
  const Nccl& nccl_;
  const int rank_, ranks_;
  ncclComm* communicator_ = nullptr;
  std::mutex calls_;  // of NCCL's functions with the communicator
  std::atomic<bool> ended_{false};
};

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
