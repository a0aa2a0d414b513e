// Launches Hopper's products of many decode rows with kv_b.
#include "ops/mla_decode/sm90/head_product.cuh"

#include "cuda/launch.cuh"
#include "ops/mla_decode/sm90/head_product.h"

namespace longcat::cuda {
namespace {

constexpr int64_t kFewRows = kProductRows;  // so many the other kernels take at once

template <Product P, class W, int COLUMNS>
void launchMany(const CudaContext& context, const MlaDecodeParams& p) {
  using S = ManyShape<P, COLUMNS>;
  const int64_t blocks = p.heads * ((S::kAbsorb ? p.kvRank : p.vDim) / COLUMNS);
  const int64_t across = std::max<int64_t>(1, context.multiprocessors / blocks);
  const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(std::min<int64_t>(ceilDiv(p.capacity, 2 * kManyRows), across)));
  launch(context, headProductOfMany<P, W, COLUMNS>, grid, kManyThreads, S::kSharedBytes, p);
}

template <Product P, int COLUMNS>
void product(const CudaContext& context, const MlaDecodeParams& p) {
  return p.kvB.dtype == DType::bf16 ? launchMany<P, Bf16, COLUMNS>(context, p) : launchMany<P, Fp8, COLUMNS>(context, p);
}

/// Whether so many blocks occupy most of the card.
bool occupyMost(const CudaContext& context, int64_t blocks) { return 4 * blocks >= 3 * context.multiprocessors; }

}  // namespace

bool productsOnHopper(const CudaContext& context, const MlaDecodeParams& p) {
  const bool fp8 = p.kvB.dtype == DType::f8e4m3;
  const bool sized = p.kvRank == kHopperRank && p.nope == kManyNope && p.vDim % (fp8 ? kFp8Block : 64) == 0;
  const bool storesQuads = reinterpret_cast<uintptr_t>(p.out.data) % (4 * sizeof(Bf16)) == 0;
  return context.capability == 90 && sized && storesQuads && (fp8 || p.kvB.dtype == DType::bf16);
}
bool manyRowsPay(const MlaDecodeParams& p) { return p.capacity > kFewRows; }
bool manyHeadsPay(const CudaContext& context, const MlaDecodeParams& p) { return occupyMost(context, p.heads * (kHopperRank / 128)); }

void absorbMany(const CudaContext& context, const MlaDecodeParams& p) {
  return occupyMost(context, p.heads * (kHopperRank / 256)) ? product<Product::absorb, 256>(context, p) : product<Product::absorb, 128>(context, p);
}
void valuesOfMany(const CudaContext& context, const MlaDecodeParams& p) { product<Product::values, 64>(context, p); }

}  // namespace longcat::cuda
