// Launches Hopper's products of many decode rows with kv_b.
#include "ops/mla_decode/sm90/head_product.cuh"

#include "cuda/launch.cuh"
#include "ops/mla_decode/sm90/head_product.h"

namespace longcat::cuda {
namespace {

constexpr int64_t kFewRows = kProductRows;  // so many the other kernels take at once

/// That share out a head's columns.
template <Product P>
int64_t blocksOf(const MlaDecodeParams& p) {
  return p.heads * ((ManyShape<P>::kAbsorb ? p.kvRank : p.vDim) / ManyShape<P>::kColumns);
}

template <Product P, class W>
void launchMany(const CudaContext& context, const MlaDecodeParams& p) {
  using S = ManyShape<P>;
  const int64_t blocks = blocksOf<P>(p);
  const int64_t across = std::max<int64_t>(1, context.multiprocessors / blocks);
  const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(std::min<int64_t>(ceilDiv(p.capacity, 2 * kManyRows), across)));
  launch(context, headProductOfMany<P, W>, grid, kManyThreads, S::kSharedBytes, p);
}

template <Product P>
void product(const CudaContext& context, const MlaDecodeParams& p) {
  return p.kvB.dtype == DType::bf16 ? launchMany<P, Bf16>(context, p) : launchMany<P, Fp8>(context, p);
}

}  // namespace

bool productsOnHopper(const CudaContext& context, const MlaDecodeParams& p) {
  const bool fp8 = p.kvB.dtype == DType::f8e4m3;
  const bool sized = p.kvRank == kHopperRank && p.nope == kManyNope && p.vDim % (fp8 ? kFp8Block : 64) == 0;
  const bool storesQuads = reinterpret_cast<uintptr_t>(p.out.data) % (4 * sizeof(Bf16)) == 0;
  return context.capability == 90 && sized && storesQuads && (fp8 || p.kvB.dtype == DType::bf16);
}
bool manyRowsPay(const MlaDecodeParams& p) { return p.capacity > kFewRows; }
bool manyHeadsPay(const CudaContext& context, const MlaDecodeParams& p) { return blocksOf<Product::absorb>(p) >= context.multiprocessors / 2; }

void absorbMany(const CudaContext& context, const MlaDecodeParams& p) { product<Product::absorb>(context, p); }
void valuesOfMany(const CudaContext& context, const MlaDecodeParams& p) { product<Product::values>(context, p); }

}  // namespace longcat::cuda
