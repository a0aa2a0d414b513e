// mla_decode on a GPU: absorbed queries; split attention; merge and values. Each stage takes tensor cores where activations are bfloat16
// and sizes allow (heads of any number), or goes in float32 arithmetic (generic.cuh). The choice depends on shapes, dtypes and addresses
// alone; where it also looks at a capacity or at the card, both choices give the same bits (but for lists of units too long for Hopper's
// kernel to number, of some 400,000: the kernel of other cards then sums in another order).
#include "cuda/launch.cuh"
#include "ops/mla_decode/attend.cuh"
#include "ops/mla_decode/generic.cuh"
#include "ops/mla_decode/head_product.cuh"
#include "ops/mla_decode/merge.cuh"
#include "ops/mla_decode/sm90/attend.h"
#include "ops/mla_decode/sm90/head_product.h"

namespace longcat::cuda {
namespace {

constexpr int kSmallBlocks = 8;                     // resident on a multiprocessor, of kernels without much shared memory
constexpr int64_t kRepeatedMergeBytes = 32 << 20;   // partial results that all blocks of a fused merge read at most

bool aligned(const void* pointer, uintptr_t bytes) { return reinterpret_cast<uintptr_t>(pointer) % bytes == 0; }
bool multiple(int64_t value, int64_t of) { return value % of == 0; }

/// Whether chunks of eight numbers can be copied out of every operand.
bool inChunks(const MlaDecodeParams& p) {
  return p.activation == DType::bf16 && multiple(p.kvRank, 8) && multiple(p.nope, 8) && multiple(p.rope, 8) && aligned(p.q.data, 16) &&
         aligned(p.cache.data, 16) && aligned(p.qLatent.data, 16) && aligned(p.out.data, 4) && aligned(p.partial, 8);
}
/// Whether tensor cores can multiply by kv_b; FP8 scales must be the same along eight of its rows.
bool weightInChunks(const MlaDecodeParams& p) {
  if (p.kvB.dtype == DType::bf16) return aligned(p.kvB.data, 16);
  return p.kvB.dtype == DType::f8e4m3 && aligned(p.kvB.data, 8) && multiple(p.nope + p.vDim, 8);
}

template <Product P, RowSource S, class W, int NT>
void launchProduct(const CudaContext& context, const MlaDecodeParams& p, const UnitCut& cut) {
  const int64_t columns = P == Product::absorb ? p.kvRank : p.vDim, k = P == Product::absorb ? p.nope : p.kvRank;
  const int64_t blocks = p.heads * ceilDiv(columns, NT), rowTiles = ceilDiv(p.capacity, kProductRows);
  const int64_t across = std::max<int64_t>(1, 4 * context.multiprocessors / blocks);
  const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(std::min<int64_t>(rowTiles, across)));
  launch(context, headProduct<P, S, W, NT>, grid, kProductThreads, productSharedBytes<P, NT>(k), p, cut);
}

/// Wide tiles where they occupy half of the card, for they read the rows less often.
template <Product P>
bool wideTiles(const CudaContext& context, const MlaDecodeParams& p) {
  const int64_t columns = P == Product::absorb ? p.kvRank : p.vDim, k = P == Product::absorb ? p.nope : p.kvRank;
  return 2 * p.heads * ceilDiv(columns, 64) >= context.multiprocessors && productSharedBytes<P, 64>(k) <= static_cast<size_t>(context.sharedBytes);
}

template <Product P, RowSource S, int NT>
void launchProduct(const CudaContext& context, const MlaDecodeParams& p, const UnitCut& cut = {}) {
  return p.kvB.dtype == DType::bf16 ? launchProduct<P, S, Bf16, NT>(context, p, cut) : launchProduct<P, S, Fp8, NT>(context, p, cut);
}

template <Product P, RowSource S>
void product(const CudaContext& context, const MlaDecodeParams& p) {
  return wideTiles<P>(context, p) ? launchProduct<P, S, 64>(context, p) : launchProduct<P, S, 16>(context, p);
}

/// Values of few rows whose units, which are Hopper's, each block merges for itself: a block for each multiprocessor, or so.
template <RowSource S>
void valuesOfUnits(const CudaContext& context, const MlaDecodeParams& p) {
  const UnitCut cut = unitCut(context, p);
  const bool narrow = 2 * p.heads * ceilDiv(p.vDim, 32) <= 3 * context.multiprocessors;
  return narrow ? launchProduct<Product::values, S, 32>(context, p, cut) : launchProduct<Product::values, S, 64>(context, p, cut);
}

template <Product P>
bool fitsProduct(const CudaContext& context, const MlaDecodeParams& p) {
  const int64_t k = P == Product::absorb ? p.nope : p.kvRank;
  return inChunks(p) && weightInChunks(p) && k <= kProductMaxDepth && productSharedBytes<P, 16>(k) <= static_cast<size_t>(context.sharedBytes);
}

template <class T>
void absorb(const CudaContext& context, const MlaDecodeParams& p) {
  if (inChunks(p) && weightInChunks(p) && productsOnHopper(context, p) && (manyRowsPay(p) || manyHeadsPay(context, p))) return absorbMany(context, p);
  // Along k, FP8 scales must be the same within each step of 16.
  const bool steps = p.kvB.dtype != DType::f8e4m3 || multiple(p.nope + p.vDim, 16);
  if (steps && fitsProduct<Product::absorb>(context, p)) return product<Product::absorb, RowSource::given>(context, p);
  const int64_t blocks = ceilDiv(p.capacity * p.heads * p.kvRank, kGenericThreads);
  launch(context, absorbGeneric<T>, dim3(persistentGrid(context, blocks, kSmallBlocks)), kGenericThreads, 0, p);
}

/// False where the block does not fit the card, or would leave much of it idle though fewer heads a block would not.
template <int MT, int STAGES, bool PACKED>
bool launchAttend(const CudaContext& context, const MlaDecodeParams& p, bool evenIfIdle) {
  const size_t bytes = attendSharedBytes<MT, STAGES>(p.kvRank + p.rope);
  const int64_t items = p.maxSplits * ceilDiv(p.heads, 16 * MT);
  if (bytes > static_cast<size_t>(context.sharedBytes) || (!evenIfIdle && items < context.multiprocessors)) return false;
  const int resident = MT < 4 && 2 * bytes <= static_cast<size_t>(context.sharedBytes) ? 2 : 1;
  launch(context, attendSplits<MT, STAGES, PACKED>, dim3(persistentGrid(context, items, resident)), kAttendThreads, bytes, p);
  return true;
}

template <bool PACKED>
bool attendOnTensorCores(const CudaContext& context, const MlaDecodeParams& p) {
  if (!inChunks(p) || p.kvRank > kAttendMaxRank) return false;
  if (p.heads > 32 && (launchAttend<4, 3, PACKED>(context, p, false) || launchAttend<4, 2, PACKED>(context, p, false))) return true;
  if (p.heads > 16 && (launchAttend<2, 3, PACKED>(context, p, false) || launchAttend<2, 2, PACKED>(context, p, false))) return true;
  return launchAttend<1, 4, PACKED>(context, p, true) || launchAttend<1, 2, PACKED>(context, p, true);
}

template <class T>
void attend(const CudaContext& context, const MlaDecodeParams& p) {
  if (p.packedCache ? attendOnTensorCores<true>(context, p) : attendOnTensorCores<false>(context, p)) return;
  const auto generic = p.packedCache ? attendGeneric<T, PackedKey> : attendGeneric<T, PlainKey<T>>;
  launch(context, generic, dim3(persistentGrid(context, p.maxSplits * p.heads, kSmallBlocks)), kGenericThreads, 0, p);
}

template <class T>
void mergeIntoLatent(const CudaContext& context, const MlaDecodeParams& p) {
  const int64_t blocks = ceilDiv(p.capacity * p.heads * ceilDiv(p.kvRank, 32), kMergeThreads / 32);
  launch(context, mergeRows<T>, dim3(persistentGrid(context, blocks, 16)), kMergeThreads, 0, p);
}

bool valuesOnTensorCores(const CudaContext& context, const MlaDecodeParams& p) { return multiple(p.vDim, 8) && fitsProduct<Product::values>(context, p); }

/// Values of the latents in qLatent.
template <class T>
void values(const CudaContext& context, const MlaDecodeParams& p) {
  if (inChunks(p) && weightInChunks(p) && productsOnHopper(context, p) && manyRowsPay(p)) return valuesOfMany(context, p);
  if (valuesOnTensorCores(context, p)) return product<Product::values, RowSource::given>(context, p);
  const int64_t blocks = ceilDiv(p.capacity * p.heads * p.vDim, kGenericWarps);
  launch(context, valuesGeneric<T>, dim3(persistentGrid(context, blocks, kSmallBlocks)), kGenericThreads, 0, p);
}

/// Merge and values: one kernel where its blocks, each of which merges for itself, read little more than once what there is.
template <class T>
void finish(const CudaContext& context, const MlaDecodeParams& p) {
  if (valuesOnTensorCores(context, p)) {
    const int64_t repeats = ceilDiv(p.vDim, wideTiles<Product::values>(context, p) ? 64 : 16);
    const int64_t bytes = p.maxSplits * p.heads * p.kvRank * static_cast<int64_t>(sizeof(float));
    if (repeats * bytes <= kRepeatedMergeBytes) return product<Product::values, RowSource::splits>(context, p);
  }
  mergeIntoLatent<T>(context, p);
  values<T>(context, p);
}

/// The same after Hopper's attention: one kernel for as many rows as it takes at once, but no more than two where units are small: more of them are read by
/// each of its blocks.
void finishUnits(const CudaContext& context, const MlaDecodeParams& p) {
  const int64_t together = unitCut(context, p).heads < kUnitHeads ? 2 : kProductRows;
  if (p.capacity <= together && valuesOnTensorCores(context, p))
    return p.capacity <= 2 ? valuesOfUnits<RowSource::unitsOfTwo>(context, p) : valuesOfUnits<RowSource::units>(context, p);
  mergeUnitsOnHopper(context, p);
  values<Bf16>(context, p);
}

}  // namespace

void mla_decode(const void* params, const CudaContext& context) {
  const auto& p = *static_cast<const MlaDecodeParams*>(params);
  if (p.capacity == 0 || p.maxSplits == 0) return;
  LONGCAT_ACTIVATION(p.activation, T, {
    absorb<T>(context, p);
    if (inChunks(p) && aligned(p.partial, 16) && attendUnitsOnHopper(context, p)) return finishUnits(context, p);
    attend<T>(context, p);
    finish<T>(context, p);
  });
}

}  // namespace longcat::cuda
