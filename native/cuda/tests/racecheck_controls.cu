// What compute-sanitizer's racecheck makes of Hopper's ways to order accesses to shared memory: small kernels that are right by PTX's memory model, each
// with one way that our kernels use, and the same with a real race. What it reports of the first it does not understand; what it does not report of the
// others it does not see. scripts/sanitize-gpu.sh --controls runs them and prints a table (cmake --build build --target racecheck_controls makes this).
//
//   racecheck_controls                 names and modes
//   racecheck_controls NAME MODE       ordered, or early-read (who reads does not wait), early-write (who writes does not); "wrong" if an ordered one is
#include <cstdio>
#include <cstring>
#include <exception>
#include <string>
#include <vector>

#include "cuda/dependent.cuh"
#include "cuda/hopper/copy.cuh"
#include "cuda/hopper/exchange.cuh"
#include "cuda/hopper/wgmma.cuh"
#include "cuda/launch.cuh"

using namespace longcat;
using namespace longcat::cuda;

namespace {

enum class Mode { ordered, earlyRead, earlyWrite };

constexpr int kRounds = 4, kGroup = 128;                // threads that write, and as many that read
constexpr int kRowBytes = 128, kRows = 64, kStageBytes = kRows * kRowBytes;
constexpr int kPieces = kStageBytes / 16 / kGroup;      // of 16 bytes, a thread

/// Two bfloat16 numbers, 1 + round each.
__host__ __device__ constexpr uint32_t patternOf(int round) {
  constexpr uint32_t kNumbers[kRounds] = {0x3f803f80, 0x40004000, 0x40404040, 0x40804080};
  return kNumbers[round];
}

struct Arguments {
  const unsigned char* source;  // kRounds stages
  int* wrong;                   // numbers that were not what they should be
  unsigned lanes;               // of a warp, all
};

// ---- a stage that one half of a block fills and the other half empties ---------------------------------------------------------

enum class Fill { stores, asyncCopies, bulkCopy, boxCopy };
enum class Empty { loads, matrixLoads, products };
enum class Tell { each, warp, lanes };  // who arrives at a barrier: each thread; the first lane for a warp; the same, the lanes named at run time

template <Fill kFill_, Empty kEmpty_, Tell kTell_, bool kRegisters_ = false>
struct Ring {
  static constexpr Fill kFill = kFill_;
  static constexpr Empty kEmpty = kEmpty_;
  static constexpr Tell kTell = kTell_;
  static constexpr bool kRegisters = kRegisters_;  // change hands first
  static constexpr int kTellers = kTell == Tell::each ? kGroup : kGroup / 32;
  static constexpr int kFillers = kFill == Fill::stores ? kTellers : kFill == Fill::asyncCopies ? kGroup : 1;
};

struct alignas(1024) RingShared {
  unsigned char stage[kStageBytes];
  unsigned char ones[8 * kRowBytes];
  Barrier full, empty;
};

template <Tell kTell>
__device__ __forceinline__ void tell(const Arguments& a, Barrier* barrier) {
  if constexpr (kTell != Tell::each) {
    if constexpr (kTell == Tell::warp) __syncwarp();
    else __syncwarp(a.lanes);
    if (threadIdx.x % 32 == 0) arrive(barrier);
  } else {
    arrive(barrier);
  }
}

template <class R>
__device__ __forceinline__ void fill(RingShared& shared, const Arguments& a, const TensorMap& map, int round, int thread) {
  if constexpr (R::kFill == Fill::stores) {
    const uint32_t v = patternOf(round);
#pragma unroll
    for (int i = 0; i < kPieces; ++i) *reinterpret_cast<uint4*>(shared.stage + (i * kGroup + thread) * 16) = make_uint4(v, v, v, v);
    if constexpr (R::kEmpty == Empty::products) fenceAsyncProxy();
  } else if constexpr (R::kFill == Fill::asyncCopies) {
#pragma unroll
    for (int i = 0; i < kPieces; ++i) copyAsync16(shared.stage + (i * kGroup + thread) * 16, a.source + round * kStageBytes + (i * kGroup + thread) * 16);
  } else if (thread == 0) {
    arriveExpecting(&shared.full, kStageBytes);
    if constexpr (R::kFill == Fill::boxCopy) {
      copyBox(shared.stage, &map, &shared.full, 0, round * kRows, usualPolicy());
    } else {
      asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];\n" ::"r"(sharedAddress(shared.stage)),
                   "l"(a.source + round * kStageBytes), "r"(kStageBytes), "r"(sharedAddress(&shared.full))
                   : "memory");
    }
  }
}
/// What is filled so far is said to be there; copies in bulk say so themselves.
template <class R>
__device__ __forceinline__ void tellFull(RingShared& shared, const Arguments& a) {
  if constexpr (R::kFill == Fill::stores) tell<R::kTell>(a, &shared.full);
  else if constexpr (R::kFill == Fill::asyncCopies) arriveAfterCopies(&shared.full);
}

/// How many of the numbers that this thread reads are wrong.
template <class R>
__device__ __forceinline__ int readStage(RingShared& shared, int round, int thread) {
  int wrong = 0;
  if constexpr (R::kEmpty == Empty::products) {
    float sum[4] = {};
    holdRegisters(sum);
    beginProducts();
#pragma unroll
    for (int k = 0; k < kRowBytes; k += 32) productBf16<8>(sum, rowsOfK(shared.stage + k), rowsOfK(shared.ones + k));
    endProducts();
    waitProducts<0>();
    holdRegisters(sum);
    for (float s : sum) wrong += s != 64.0f * static_cast<float>(round + 1);
  } else if constexpr (R::kEmpty == Empty::matrixLoads) {
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      uint32_t v[4];
      loadMatrix4(v, shared.stage + (i * kGroup + kGroup - 1 - thread) * 16);
      for (uint32_t x : v) wrong += x != patternOf(round);
    }
  } else {
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      const uint4 v = *reinterpret_cast<const uint4*>(shared.stage + (i * kGroup + kGroup - 1 - thread) * 16);
      wrong += (v.x != patternOf(round)) + (v.y != patternOf(round)) + (v.z != patternOf(round)) + (v.w != patternOf(round));
    }
  }
  return wrong;
}

template <class R, Mode kMode>
__global__ void __launch_bounds__(2 * kGroup, 2) ring(const __grid_constant__ Arguments a, const __grid_constant__ TensorMap map) {
  awaitThenLetNextBegin();
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  __shared__ RingShared shared;
  const int thread = static_cast<int>(threadIdx.x) % kGroup;
  if (threadIdx.x == 0) {
    initBarrier(&shared.full, R::kFillers);
    initBarrier(&shared.empty, R::kTellers);
    fenceBarriers();
  }
  for (int i = static_cast<int>(threadIdx.x); i < 8 * kRowBytes / 4; i += 2 * kGroup) reinterpret_cast<uint32_t*>(shared.ones)[i] = patternOf(0);
  fenceAsyncProxy();
  __syncthreads();
  const auto meet = [] { syncSome(1, 2 * kGroup); };  // all have seen that the round before is there, before anybody reads it: so an early write is one
  if (threadIdx.x >= kGroup) {
    if constexpr (R::kRegisters) fewerRegisters<40>();
    for (int round = 0; round < kRounds; ++round) {
      const uint32_t before = (round & 1) ^ 1;
      if (kMode != Mode::earlyWrite) wait(&shared.empty, before);
      else if (round > 0) meet();
      fill<R>(shared, a, map, round, thread);
      if (kMode == Mode::earlyWrite) wait(&shared.empty, before);
      tellFull<R>(shared, a);
    }
    if (kMode == Mode::earlyWrite) meet();
    waitCopies<0>();
  } else {
    if constexpr (R::kRegisters) moreRegisters<200>();
    int wrong = 0;
    for (int round = 0; round < kRounds; ++round) {
      if (kMode != Mode::earlyRead) wait(&shared.full, round & 1);
      if (kMode == Mode::earlyWrite) meet();
      wrong += readStage<R>(shared, round, thread);
      if (kMode == Mode::earlyRead) wait(&shared.full, round & 1);
      tell<R::kTell>(a, &shared.empty);
    }
    if (wrong) atomicAdd(a.wrong, wrong);
  }
#endif
}

// ---- barriers of a warp, of a block, of some warps -----------------------------------------------------------------------------

enum class Among { warp, block, some };

template <Among kAmong, Mode kMode>
__global__ void __launch_bounds__(2 * kGroup) exchange(const __grid_constant__ Arguments a) {
  awaitThenLetNextBegin();
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  __shared__ uint32_t words[2 * kGroup];
  const int thread = static_cast<int>(threadIdx.x);
  constexpr int kThreads = kAmong == Among::warp ? 32 : kAmong == Among::block ? 2 * kGroup : kGroup;
  const auto meet = [] {
    if constexpr (kAmong == Among::warp) __syncwarp();
    else if constexpr (kAmong == Among::block) __syncthreads();
    else syncSome(1 + static_cast<int>(threadIdx.x) / kGroup, kGroup);
  };
  const int other = thread / kThreads * kThreads + kThreads - 1 - thread % kThreads;
  int wrong = 0;
  for (int round = 0; round < kRounds; ++round) {
    words[thread] = static_cast<uint32_t>(round + thread);
    if constexpr (kMode != Mode::earlyRead) meet();
    wrong += words[other] != static_cast<uint32_t>(round + other);
    if constexpr (kMode != Mode::earlyWrite) meet();
  }
  if (wrong) atomicAdd(a.wrong, wrong);
#endif
}

/// Half of the block writes and goes on (bar.arrive), the other half waits and reads (bar.sync); and the other way round before the next round.
template <Mode kMode>
__global__ void __launch_bounds__(2 * kGroup) takeTurns(const __grid_constant__ Arguments a) {
  awaitThenLetNextBegin();
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  __shared__ uint32_t words[kGroup];
  const int thread = static_cast<int>(threadIdx.x) % kGroup;
  int wrong = 0;
  for (int round = 0; round < kRounds; ++round) {
    if (threadIdx.x >= kGroup) {
      if (kMode != Mode::earlyWrite && round > 0) syncSome(2, 2 * kGroup);
      words[thread] = static_cast<uint32_t>(round + thread);
      if (kMode == Mode::earlyWrite && round > 0) syncSome(2, 2 * kGroup);
      arriveSome(1, 2 * kGroup);
    } else {
      if (kMode != Mode::earlyRead) syncSome(1, 2 * kGroup);
      wrong += words[kGroup - 1 - thread] != static_cast<uint32_t>(round + kGroup - 1 - thread);
      if (kMode == Mode::earlyRead) syncSome(1, 2 * kGroup);
      if (round + 1 < kRounds) arriveSome(2, 2 * kGroup);
    }
  }
  if (wrong) atomicAdd(a.wrong, wrong);
#endif
}

// ---- clusters --------------------------------------------------------------------------------------------------------------------

constexpr int kBlocks = 8;

/// Each block reads what the next one has.
template <Mode kMode>
__global__ void __launch_bounds__(kGroup) readNeighbour(const __grid_constant__ Arguments a) {
  awaitThenLetNextBegin();
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  __shared__ uint4 words[kGroup];
  const uint32_t thread = threadIdx.x, rank = clusterRank(), next = (rank + 1) % clusterSize();
  syncCluster();  // all have begun
  int wrong = 0;
  for (uint32_t round = 0; round < kRounds; ++round) {
    words[thread] = make_uint4(round, rank, thread, 0);
    if (kMode != Mode::earlyRead) syncCluster();
    const uint4 v = loadOfBlock(&words[kGroup - 1 - thread], next);
    wrong += v.x != round || v.y != next || v.z != kGroup - 1 - thread;
    if (kMode != Mode::earlyWrite) syncCluster();
  }
  syncCluster();
  if (wrong) atomicAdd(a.wrong, wrong);
#endif
}

/// A sum over a block of 1024 threads behind a cluster's barrier, by a word of each warp, as the router's plan has it.
template <Mode kMode>
__global__ void __launch_bounds__(1024) sumAfterCluster(const __grid_constant__ Arguments a) {
  awaitThenLetNextBegin();
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  __shared__ uint4 words[256];
  __shared__ alignas(16) uint32_t ofWarps[32];
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32;
  if (thread < 256) words[thread] = make_uint4(1, 1, 1, 1);
  for (int round = 0; round < kRounds; ++round) {
    syncCluster();
    uint32_t sum = 0;
    if (thread < 256)
      for (uint32_t b = 0; b < clusterSize(); ++b) sum += loadOfBlock(&words[thread], b).x;
    sum = __reduce_add_sync(0xffffffffu, sum);
    if (thread % 32 == 31) ofWarps[warp] = sum;
    if (kMode != Mode::earlyRead) __syncthreads();
    uint32_t before = 0;
    if (thread < 256)
      for (int w = 0; w < warp; ++w) before += ofWarps[w];
    if (thread < 256 && before != 32 * kBlocks * static_cast<uint32_t>(warp)) atomicAdd(a.wrong, 1);
  }
  syncCluster();
#endif
}

struct SendShared {
  float4 room[kGroup];
  Barrier full, free;
};

/// Each block sends to the next one by stores that report at its barrier, and is told by it when its words have been read.
template <Mode kMode>
__global__ void __launch_bounds__(2 * kGroup) sendToNeighbour(const __grid_constant__ Arguments a) {
  awaitThenLetNextBegin();
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  __shared__ SendShared shared;
  const int thread = static_cast<int>(threadIdx.x) % kGroup;
  const uint32_t rank = clusterRank(), next = (rank + 1) % clusterSize(), last = (rank + clusterSize() - 1) % clusterSize();
  if (threadIdx.x == 0) {
    initBarrier(&shared.full, 1);
    initBarrier(&shared.free, kGroup);
    fenceBarriers();
  }
  syncCluster();
  if (threadIdx.x >= kGroup) {
    const uint32_t to = addressIn(&shared.room[thread], next), barrier = addressIn(&shared.full, next);
    for (int round = 0; round < kRounds; ++round) {
      const uint32_t before = (round & 1) ^ 1;
      if (kMode == Mode::earlyWrite && round > 0) syncCluster();
      else waitAcross(&shared.free, before);
      storeAt(to, make_float4(static_cast<float>(round), static_cast<float>(rank), static_cast<float>(thread), 0), barrier);
      if (kMode == Mode::earlyWrite) waitAcross(&shared.free, before);
    }
    if (kMode == Mode::earlyWrite) syncCluster();
  } else {
    int wrong = 0;
    for (int round = 0; round < kRounds; ++round) {
      if (thread == 0) arriveExpecting(&shared.full, sizeof(shared.room));
      if (kMode != Mode::earlyRead) waitAcross(&shared.full, round & 1);
      if (kMode == Mode::earlyWrite) syncCluster();
      const float4 v = shared.room[kGroup - 1 - thread];
      wrong += v.x != static_cast<float>(round) || v.y != static_cast<float>(last) || v.z != static_cast<float>(kGroup - 1 - thread);
      if (kMode == Mode::earlyRead) waitAcross(&shared.full, round & 1);
      arriveAt(&shared.free, last);
    }
    if (wrong) atomicAdd(a.wrong, wrong);
  }
  syncCluster();
#endif
}

/// Each of two blocks fetches half of a stage for both.
template <Mode kMode>
__global__ void __launch_bounds__(kGroup + 32) copyToBoth(const __grid_constant__ Arguments a, const __grid_constant__ TensorMap map) {
  awaitThenLetNextBegin();
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  __shared__ RingShared shared;
  const uint32_t rank = clusterRank();
  if (threadIdx.x == 0) {
    initBarrier(&shared.full, 1);
    initBarrier(&shared.empty, 2 * kGroup);
    fenceBarriers();
  }
  syncCluster();
  if (threadIdx.x >= kGroup) {
    for (int round = 0; round < kRounds; ++round) {
      if (threadIdx.x == kGroup) {
        wait(&shared.empty, (round & 1) ^ 1);
        arriveExpecting(&shared.full, kStageBytes);
        copyBoxToAll(shared.stage + rank * (kStageBytes / 2), &map, &shared.full, 0, round * kRows + static_cast<int>(rank) * (kRows / 2), 3, usualPolicy());
      }
      __syncwarp();
    }
  } else {
    int wrong = 0;
    for (int round = 0; round < kRounds; ++round) {
      if (kMode != Mode::earlyRead) wait(&shared.full, round & 1);
      wrong += readStage<Ring<Fill::boxCopy, Empty::loads, Tell::each>>(shared, round, static_cast<int>(threadIdx.x));
      if (kMode == Mode::earlyRead) wait(&shared.full, round & 1);
      arriveAt(&shared.empty, 0);
      arriveAt(&shared.empty, 1);
    }
    if (wrong) atomicAdd(a.wrong, wrong);
  }
  syncCluster();
#endif
}

// ---- which there are -------------------------------------------------------------------------------------------------------------

struct Setting {
  CudaContext context;
  Arguments arguments;
  TensorMap stages, halves;  // the source, in boxes of a stage or of half a stage
};

struct Control {
  const char *name, *what;
  std::vector<Mode> modes;
  void (*run)(const Setting& s, Mode mode);
};

/// `launch` for the mode that is asked for.
template <class F>
void forMode(Mode mode, const F& launch) {
  if (mode == Mode::ordered) launch.template operator()<Mode::ordered>();
  else if (mode == Mode::earlyRead) launch.template operator()<Mode::earlyRead>();
  else launch.template operator()<Mode::earlyWrite>();
}

template <class R>
void runRing(const Setting& s, Mode mode) {
  forMode(mode, [&]<Mode kMode>() {
    for (int i = 0; i < 3; ++i) cuda::launch(s.context, ring<R, kMode>, dim3(4), 2 * kGroup, 0, s.arguments, s.stages);
  });
}
template <Among kAmong>
void runExchange(const Setting& s, Mode mode) {
  forMode(mode, [&]<Mode kMode>() { cuda::launch(s.context, exchange<kAmong, kMode>, dim3(4), 2 * kGroup, 0, s.arguments); });
}

const std::vector<Mode> kBoth = {Mode::ordered, Mode::earlyRead, Mode::earlyWrite}, kReads = {Mode::ordered, Mode::earlyRead};

const Control kControls[] = {
    {"syncwarp", "__syncwarp", kBoth, runExchange<Among::warp>},
    {"syncthreads", "__syncthreads", kBoth, runExchange<Among::block>},
    {"named", "bar.sync of half a block", kBoth, runExchange<Among::some>},
    {"turns", "bar.arrive and bar.sync", kBoth,
     [](const Setting& s, Mode mode) {
       forMode(mode, [&]<Mode kMode>() { cuda::launch(s.context, takeTurns<kMode>, dim3(4), 2 * kGroup, 0, s.arguments); });
     }},
    {"each", "mbarrier, each thread arrives", kBoth, runRing<Ring<Fill::stores, Empty::loads, Tell::each>>},
    {"warp", "mbarrier, __syncwarp and a lane arrives", kBoth, runRing<Ring<Fill::stores, Empty::loads, Tell::warp>>},
    {"lanes", "the same, its lanes named at run time", kBoth, runRing<Ring<Fill::stores, Empty::loads, Tell::lanes>>},
    {"registers", "the same as 'each' behind setmaxnreg", kBoth, runRing<Ring<Fill::stores, Empty::loads, Tell::each, true>>},
    {"copies", "cp.async, mbarrier.arrive.noinc", kBoth, runRing<Ring<Fill::asyncCopies, Empty::loads, Tell::each>>},
    {"copies-matrix", "the same, read by ldmatrix, a lane arrives", kBoth, runRing<Ring<Fill::asyncCopies, Empty::matrixLoads, Tell::warp>>},
    {"bulk", "cp.async.bulk, complete_tx", kBoth, runRing<Ring<Fill::bulkCopy, Empty::loads, Tell::each>>},
    {"box", "cp.async.bulk.tensor, complete_tx", kBoth, runRing<Ring<Fill::boxCopy, Empty::loads, Tell::each>>},
    {"box-warp", "the same, a lane arrives", kBoth, runRing<Ring<Fill::boxCopy, Empty::loads, Tell::warp>>},
    {"box-products", "cp.async.bulk.tensor, read by wgmma", kBoth, runRing<Ring<Fill::boxCopy, Empty::products, Tell::warp>>},
    {"products", "stores, fence.proxy.async, read by wgmma", kBoth, runRing<Ring<Fill::stores, Empty::products, Tell::each>>},
    {"cluster", "barrier.cluster, ld.shared::cluster", kBoth,
     [](const Setting& s, Mode mode) {
       forMode(mode, [&]<Mode kMode>() { cuda::launch(s.context, readNeighbour<kMode>, LaunchShape{dim3(kBlocks), kGroup, 0, kBlocks}, s.arguments); });
     }},
    {"cluster-block", "__syncthreads behind barrier.cluster", kReads,
     [](const Setting& s, Mode mode) {
       forMode(mode, [&]<Mode kMode>() {
         for (int i = 0; i < 5; ++i) cuda::launch(s.context, sumAfterCluster<kMode>, LaunchShape{dim3(kBlocks), 1024, 0, kBlocks}, s.arguments);
       });
     }},
    {"send", "st.async, complete_tx, arrival at another block", kBoth,
     [](const Setting& s, Mode mode) {
       forMode(mode, [&]<Mode kMode>() { cuda::launch(s.context, sendToNeighbour<kMode>, LaunchShape{dim3(kBlocks), 2 * kGroup, 0, kBlocks}, s.arguments); });
     }},
    {"box-both", "cp.async.bulk.tensor to both blocks of a cluster", kReads,
     [](const Setting& s, Mode mode) {
       forMode(mode, [&]<Mode kMode>() { cuda::launch(s.context, copyToBoth<kMode>, LaunchShape{dim3(2), kGroup + 32, 0, 2}, s.arguments, s.halves); });
     }},
};

constexpr const char* kModes[] = {"ordered", "early-read", "early-write"};

int list() {
  for (const Control& control : kControls) {
    std::printf("%s", control.name);
    for (Mode mode : control.modes) std::printf(" %s", kModes[static_cast<int>(mode)]);
    std::printf("\t%s\n", control.what);
  }
  return 0;
}

int run(const Control& control, Mode mode) {
  Setting s;
  cudaDeviceProp card;
  LONGCAT_CUDA(cudaGetDeviceProperties(&card, 0));
  s.context.useCard(card);
  if (s.context.capability != 90) throw std::runtime_error("this card is not of compute capability 9.0");
  std::vector<uint32_t> source;
  for (int round = 0; round < kRounds; ++round) source.insert(source.end(), kStageBytes / 4, patternOf(round));
  unsigned char* memory = nullptr;
  const size_t bytes = source.size() * 4;
  LONGCAT_CUDA(cudaMalloc(&memory, bytes + sizeof(int)));
  LONGCAT_CUDA(cudaMemcpy(memory, source.data(), bytes, cudaMemcpyHostToDevice));
  LONGCAT_CUDA(cudaMemset(memory + bytes, 0, sizeof(int)));
  s.arguments = {memory, reinterpret_cast<int*>(memory + bytes), 0xffffffffu};
  s.stages = matrixMap(memory, 2, kRounds * kRows, kRowBytes / 2, kRowBytes, kRows, kRowBytes / 2, 128);
  s.halves = matrixMap(memory, 2, kRounds * kRows, kRowBytes / 2, kRowBytes, kRows / 2, kRowBytes / 2, 128);
  control.run(s, mode);
  int wrong = 0;
  LONGCAT_CUDA(cudaMemcpy(&wrong, s.arguments.wrong, sizeof(int), cudaMemcpyDeviceToHost));
  LONGCAT_CUDA(cudaFree(memory));
  std::printf("%s %s: %s\n", control.name, kModes[static_cast<int>(mode)], wrong == 0 ? "right" : "wrong");
  return mode == Mode::ordered && wrong ? 1 : 0;
}

}  // namespace

int main(int count, char** words) {
  if (count == 1) return list();
  try {
    for (const Control& control : kControls) {
      if (count != 3 || std::strcmp(control.name, words[1]) != 0) continue;
      for (Mode mode : control.modes)
        if (std::strcmp(kModes[static_cast<int>(mode)], words[2]) == 0) return run(control, mode);
    }
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 3;
  }
  std::fprintf(stderr, "usage: racecheck_controls [NAME MODE]\n");
  return 2;
}
