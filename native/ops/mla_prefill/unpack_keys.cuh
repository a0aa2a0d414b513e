// mla_prefill on a GPU, over a packed cache: the round's keys as activations. A warp takes a key.
#pragma once

#include "cuda/dependent.cuh"
#include "cuda/latents.cuh"
#include "cuda/vectors.cuh"
#include "ops/mla_prefill/prompts.cuh"

namespace longcat::cuda::prefill {

constexpr int kUnpackThreads = 256;

/// The first n of eight bfloat16.
template <class T>
__device__ __forceinline__ void storeUnpacked(T* to, int64_t n, uint4 octet) {
  float v[kOctet];
  widenOctet(octet, v);
  if (n >= kOctet && reinterpret_cast<uintptr_t>(to) % 16 == 0) storeOctet<true>(to, n, v);
  else storeOctet<false>(to, n, v);
}

/// latents[key] = [latent | rope key]; and the list says that they are there.
template <class T>
__global__ void __launch_bounds__(kUnpackThreads) unpackKeys(const MlaPrefillParams p) {
  awaitPrevious();
  const int keys = *roundKeys(p), warps = static_cast<int>(gridDim.x) * (kUnpackThreads / 32), lane = threadIdx.x & 31;
  for (int key = static_cast<int>(blockIdx.x) * (kUnpackThreads / 32) + static_cast<int>(threadIdx.x) / 32; key < keys; key += warps) {
    int32_t* const place = roundCacheRows(p) + key;
    const PackedRow<const uint8_t> row = p.packedRow(*place);
    T* const to = static_cast<T*>(p.latents.data) + key * (p.kvRank + p.rope);
    for (int64_t k = kOctet * lane; k < p.kvRank; k += kOctet * 32) storeUnpacked(to + k, p.kvRank - k, latentOctet(row, k));
    for (int64_t k = kOctet * lane; k < p.rope; k += kOctet * 32) storeUnpacked(to + p.kvRank + k, p.rope - k, ropeKeyOctet(row, k));
    __syncwarp();  // all lanes have read where it was
    if (lane == 0) *place = key;
  }
}

}  // namespace longcat::cuda::prefill
