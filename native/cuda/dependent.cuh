// Programmatic dependent launches: a kernel may begin while the one before it in the stream still ends. Before it touches anything that
// others on the stream write, it waits; what nobody writes (weights) it may fetch before that. On cards before Hopper a launch simply waits.
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

}  // namespace longcat::cuda
