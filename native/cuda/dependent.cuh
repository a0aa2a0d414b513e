// Programmatic dependent launches: a kernel may begin while the one before it in the stream still ends, and waits for that one itself. On cards
// before Hopper a launch simply waits.
//
// What a kernel may touch before it waits:
//  - weights, and nothing else of the stream's, without conditions. Kernels write weights too (convert.cu, random_fill), but whoever loads a model
//    waits for the device before the first step (ts/model/weights.ts, random-weights.ts), so that none of them directly precedes a reader.
//  - what kernels before the preceding one wrote (lengths, tables, the cache, a plan), if the preceding one lets the next begin only after it has
//    waited itself, or never says so: then all before it are over and their writes can be seen. Such a predecessor uses awaitThenLetNextBegin().
//    A kernel that lets the next begin first thing is followed only by kernels that read nothing but weights early.
// It writes nothing before it waits. test/runtime/dependent-launch.test.ts looks after products and decode attention, whose kernels read early.
#pragma once

namespace longcat::cuda {

/// Until the kernel before this one has ended and its writes can be seen. Every kernel calls it, in every thread that reads or writes what others
/// also do: kernels further back are over because the one before waited for them.
__device__ __forceinline__ void awaitPrevious() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;\n" ::: "memory");
#endif
}

/// The next kernel may begin as soon as every block has said so or ended; it takes what room there is on the multiprocessors.
__device__ __forceinline__ void letNextBegin() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;\n" ::: "memory");
#endif
}

/// Both, in the order that the next kernel counts on when it reads, before it waits, what kernels before this one wrote.
__device__ __forceinline__ void awaitThenLetNextBegin() {
  awaitPrevious();
  letNextBegin();
}

}  // namespace longcat::cuda
