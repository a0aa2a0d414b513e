// The checks that mla_prefill and mla_decode share (attention_args.h).
#include "ops/attention_args.h"

#include "ops/check.h"
#include "ops/latent_cache_check.h"

namespace longcat {
namespace {

enum Scalar { kHeads, kNope, kRope, kVDim, kSoftmaxScale };
constexpr int64_t kMaxSize = 1 << 16;  // of each: products of three stay far within int64

}  // namespace

void fillAttentionArgs(const ArgCheck& check, int blockTables, int counts, int out, AttentionArgs& to) {
  to.heads = check.integer(kHeads, 1, kMaxSize);
  to.nope = check.integer(kNope, 1, kMaxSize);
  to.rope = check.integer(kRope, 1, kMaxSize);
  to.vDim = check.integer(kVDim, 1, kMaxSize);
  to.softmaxScale = static_cast<float>(check.scalar(kSoftmaxScale));

  to.capacity = check.size(kQ, 0);
  to.activation = check.activation();
  to.q = check.activations(kQ, {to.capacity, to.heads, to.nope + to.rope});
  to.kvRank = check.size(kKvB, 1);
  check.requireArg(kKvB, to.kvRank > 0, "has no columns");
  to.cache = latentCache(check, kCache, to.kvRank, to.rope, &to.packedCache);
  to.blockSize = check.size(kCache, 1);
  to.cacheRows = check.size(kCache, 0) * to.blockSize;
  check.requireArg(kCache, to.cacheRows <= INT32_MAX, "has more rows than an int32 can number");
  to.kvB = check.weight(kKvB, kKvBScale, to.heads * (to.nope + to.vDim), to.kvRank);
  to.positions = check.dense<const int32_t>(kPositions, DType::i32, {to.capacity});
  to.blockTables = check.dense<const int32_t>(blockTables, DType::i32, {kAnySize, kAnySize});
  to.maxBlocks = check.size(blockTables, 1);
  to.counts = check.dense<const int32_t>(counts, DType::i32, {8});
  to.out = check.activations(out, {to.capacity, to.heads * to.vDim});
}

}  // namespace longcat
