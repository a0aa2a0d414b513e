// mla_prefill on a GPU: round by round, the keys and values are expanded, then attended to. Sizes, dtypes and the card choose the kernels,
// never the number of rows.
#include "cuda/gemm.h"
#include "cuda/launch.cuh"
#include "ops/mla_prefill/attend.cuh"
#include "ops/mla_prefill/attend_plain.cuh"
#include "ops/mla_prefill/plan_round.cuh"
#include "ops/mla_prefill/sm90/attend.h"
#include "ops/mla_prefill/unpack_keys.cuh"

namespace longcat::cuda {
namespace {

using namespace prefill;

bool aligned(const void* pointer, uintptr_t bytes) { return reinterpret_cast<uintptr_t>(pointer) % bytes == 0; }
bool multiple(int64_t size, int64_t of) { return size % of == 0; }

/// bf16 rows of these sizes begin at whole 16-byte vectors, and what is kept between rounds at whole pairs of float32.
bool vectorRows(const MlaPrefillParams& p) {
  return p.activation == DType::bf16 && multiple(p.kvRank, 8) && multiple(p.rope, 8) && multiple(p.nope, 8) && multiple(p.vDim, 8) &&
         aligned(p.q.data, 16) && aligned(p.cache.data, 16) && aligned(p.expanded.data, 16) && aligned(p.out.data, 16) &&
         aligned(p.accumulator, 8) && aligned(p.state, 8);
}

/// A round over a packed cache: its keys go to `latents`, one after the other, which from there on are the cache.
MlaPrefillParams unpackRound(const CudaContext& context, const MlaPrefillParams& p, const Round& round) {
  const int64_t blocks = ceilDiv(round.tiles * kKeyTile, kUnpackThreads / 32);
  LONGCAT_ACTIVATION(p.activation, T, launch(context, unpackKeys<T>, persistentGrid(context, blocks, 8), kUnpackThreads, 0, p););
  MlaPrefillParams unpacked = p;
  unpacked.cache = p.latents, unpacked.packedCache = false;
  unpacked.blockSize = kKeyTile, unpacked.cacheRows = p.expandedRows;
  return unpacked;
}

/// expanded[key] = W_kvb · latent of the round's keys. Latents are never quantised: decode attention reads them as they are, too.
void expand(const CudaContext& context, const MlaPrefillParams& p, const Round& round) {
  CudaContext exact = context;
  exact.fp8Activations = false;
  GemmProblem product = denseProblem({p.cache.data}, p.kvRank + p.rope, p.activation, roundKeys(p), round.tiles * kKeyTile, p.kvB, p.expanded, p.kvB.rows,
                                     p.activation);
  product.rowIndex = roundCacheRows(p);
  useAhead(product, p.latents.data, p.kvRank + p.rope);  // of unpacked keys only the rope part is read again
  gemm(exact, product);
}

/// Blocks for the (head, query tile) pairs of a full step of few sequences: the hardware then hands them out one by one. Ragged steps
/// of many sequences have some more tiles, which the blocks take in turns.
int attendGrid(const MlaPrefillParams& p, int64_t tileRows) {
  const int64_t tiles = std::min(p.capacity, ceilDiv(p.capacity, tileRows) + std::min<int64_t>(p.maxSequences, 8));
  return static_cast<int>(std::min<int64_t>(tiles * p.heads, INT32_MAX));
}

void attend(const CudaContext& context, const MlaPrefillParams& p, const Round& round) {
  const bool fits = p.nope + p.rope <= kDepth && p.vDim <= kWidth && p.softmaxScale > 0 && sizeof(AttendShared) <= static_cast<size_t>(context.sharedBytes);
  if (fits && vectorRows(p)) {
    if (attendHopper(context, p)) return;
    const bool usual = p.nope == 128 && p.rope == 64 && p.vDim == 128;
    return launch(context, usual ? attendTensorCores<true> : attendTensorCores<false>, attendGrid(p, kAttendRows), kAttendThreads,
                  sizeof(AttendShared), p, round);
  }
  LONGCAT_ACTIVATION(p.activation, T, launch(context, attendPlain<T>, attendGrid(p, kPlainRows), kPlainThreads, 0, p, round););
}

}  // namespace

void mla_prefill(const void* params, const CudaContext& context) {
  const auto& p = *static_cast<const MlaPrefillParams*>(params);
  if (p.capacity == 0 || p.maxSequences == 0) return;
  const int64_t tiles = std::max<int64_t>(1, ceilDiv(p.maxKeys, kKeyTile)), most = p.expandedRows / kKeyTile;
  for (int64_t first = 0; first < tiles; first += most) {
    const Round round{static_cast<int>(first), static_cast<int>(std::min(most, tiles - first))};
    launch(context, planRound, planBlocks(p, round), kPlanThreads, 0, p, round);
    const MlaPrefillParams plain = p.packedCache ? unpackRound(context, p, round) : p;
    expand(context, plain, round);
    attend(context, plain, round);
  }
}

}  // namespace longcat::cuda
