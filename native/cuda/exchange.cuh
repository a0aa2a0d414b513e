// How GPUs of one host speak during an exchange (comm/window.h): stores into another GPU's memory, flags behind them, and waiting for flags.
//
// Each block that sends raises a flag of its own in every receiver's window when what it has written can be seen there; nobody counts blocks.
// The flags of one source lie in its line of the header, behind WindowFlag, so that one load of a warp sees them all. All ranks run the same
// program and launch as many senders. Plain stores of system scope, no atomic operation crosses to another GPU: those need NVLink.
//
// A kernel that waits must not keep those from running that it waits for. Blocks here send first, whole, and wait only then; and the next
// kernel is let begin only when the waiting is over, since its blocks would fill the multiprocessors that another stream could use.
#pragma once

#include <cstdint>

#include "comm/window.h"
#include "cuda/reduce.cuh"

namespace longcat::cuda {

/// Most senders of a launch: their flags and WindowFlag fill a line.
constexpr int kMostSenders = static_cast<int>((kWindowLineBytes - sizeof(WindowFlag)) / sizeof(uint32_t));

/// The flag of sender `sender` in a source's line.
__device__ __forceinline__ uint32_t* senderFlag(std::byte* window, size_t lineOffset, int sender) {
  return reinterpret_cast<uint32_t*>(window + lineOffset + sizeof(WindowFlag)) + sender;
}

// ---- Memory that other processors see

/// What this thread has written, and what it knows by a barrier to be written, is seen by all before whatever it writes next.
__device__ __forceinline__ void fenceSystem() { asm volatile("fence.acq_rel.sys;\n" ::: "memory"); }

__device__ __forceinline__ void storeSystem(uint32_t* to, uint32_t value) { asm volatile("st.relaxed.sys.global.u32 [%0], %1;\n" ::"l"(to), "r"(value) : "memory"); }

/// A line's beginning, in one piece.
__device__ __forceinline__ void storeSystem(WindowFlag* to, WindowFlag value) {
  const uint64_t bits = static_cast<uint64_t>(static_cast<uint32_t>(value.count)) << 32 | value.epoch;
  asm volatile("st.relaxed.sys.global.u64 [%0], %1;\n" ::"l"(to), "l"(bits) : "memory");
}

__device__ __forceinline__ uint32_t loadAcquire(const uint32_t* from) {
  uint32_t value;
  asm volatile("ld.acquire.sys.global.u32 %0, [%1];\n" : "=r"(value) : "l"(from) : "memory");
  return value;
}

__device__ __forceinline__ WindowFlag loadAcquire(const WindowFlag* from) {
  uint64_t bits;
  asm volatile("ld.acquire.sys.global.u64 %0, [%1];\n" : "=l"(bits) : "l"(from) : "memory");
  return {static_cast<uint32_t>(bits), static_cast<int32_t>(bits >> 32)};
}

__device__ __forceinline__ int32_t loadHostWord(const int32_t* from) {
  int32_t value;
  asm volatile("ld.relaxed.sys.global.s32 %0, [%1];\n" : "=r"(value) : "l"(from) : "memory");
  return value;
}

__device__ __forceinline__ uint64_t nanoseconds() {
  uint64_t now;
  asm volatile("mov.u64 %0, %%globaltimer;\n" : "=l"(now));
  return now;
}

/// The exchange that is under way, as flags have it: 31 bits of its number, which wrap around, and one that no flag has which was never raised.
/// Whoever waits for a flag waits for this and no other: nobody is ahead, since that takes what the waiting rank has not sent, and senders that
/// a program does not have may be long behind.
__device__ __forceinline__ uint32_t exchangeOf(const int64_t* epoch) { return static_cast<uint32_t>(*epoch + 1) | uint32_t{1} << 31; }

// ---- Sending and waiting

/// Where a rank is sent to: a window, and which source's place there.
struct Target {
  std::byte* window;
  int64_t source;
};

/// Of rank r: its window, where this rank has its place; through NCCL the outbox, where each receiver has a place. P: an operation's parameters.
template <class P>
__device__ __forceinline__ Target targetOf(const P& p, int64_t r) {
  if (p.nccl.outbox == nullptr) return {reinterpret_cast<std::byte*>(p.windows[r]), p.rank};
  return {r == p.rank ? p.window : p.nccl.outbox, r};
}

/// Raises this sender's flag at every rank; all threads of the block call when their stores are made. flagOffset(source): of the source's line.
template <class P, class FlagOffset>
__device__ __forceinline__ void raiseFlags(const P& p, const FlagOffset& flagOffset, int sender, uint32_t exchange) {
  __syncthreads();
  for (int64_t r = threadIdx.x; r < p.ranks; r += blockDim.x) {
    const Target to = targetOf(p, r);
    fenceSystem();
    storeSystem(senderFlag(to.window, flagOffset(to.source), sender), exchange);
  }
}

/// Until reached(i) for all i in [0, count), or control[0] says to give up, which is false. One warp calls, whole. sourceOf(i): the rank that is waited
/// for; after a second `tells` has it in control[1], + 1, until that is over.
template <class Reached, class SourceOf>
__device__ bool awaitAll(int count, const Reached& reached, const SourceOf& sourceOf, int32_t* control, bool tells) {
  constexpr unsigned kLooksBetween = 256;          // at control[0], which is beyond the bus: some 0.2 ms
  constexpr uint64_t kLong = 1'000'000'000;        // ns
  const int lane = static_cast<int>(threadIdx.x) & 31;
  uint64_t since = 0;
  bool told = false, there = false;
  for (unsigned looks = 1;; ++looks) {
    int missing = count;
    for (int i = lane; i < missing; i += 32) {
      if (!reached(i)) missing = i;
    }
    missing = __reduce_min_sync(kAllLanes, missing);
    there = missing == count;
    if (there) break;
    if (looks % kLooksBetween != 0) continue;
    if (__shfl_sync(kAllLanes, lane == 0 ? loadHostWord(control) : 0, 0) != 0) break;
    const uint64_t now = nanoseconds();
    if (since == 0) since = now;
    if (tells && lane == 0 && now - since > kLong) {
      storeSystem(reinterpret_cast<uint32_t*>(control + 1), static_cast<uint32_t>(sourceOf(missing) + 1));
      told = true;
    }
  }
  if (told) storeSystem(reinterpret_cast<uint32_t*>(control + 1), 0);
  return there;
}

/// Until all `senders` of each source have raised their flags in the own window. One warp calls. `firstLine`: of source 0.
__device__ __forceinline__ bool awaitSenders(std::byte* window, size_t firstLine, int64_t ranks, int senders, uint32_t exchange, int32_t* control, bool tells) {
  const auto sourceOf = [=](int i) { return i / senders; };
  const auto reached = [=](int i) {
    const int source = sourceOf(i);
    return loadAcquire(senderFlag(window, firstLine + static_cast<size_t>(source) * kWindowLineBytes, i - source * senders)) == exchange;
  };
  return awaitAll(static_cast<int>(ranks) * senders, reached, sourceOf, control, tells);
}

}  // namespace longcat::cuda
