// Many rows of bf16 times FP8 weights on Hopper: codes become bfloat16 on their way from shared memory to the tensor cores.
//
// Weights are wgmma's A, from registers, 64 of the block's weight rows for each of the two warpgroups; all 128 rows are its B. While the tensor cores have
// one half of a block of k, a warpgroup converts the other. What ldmatrix hands a thread are four codes that follow each other; the even ones and the odd
// ones go to their places by a shift and two masks (gemm_few_formats.cuh), and the launch ahead puts the rows' numbers in that order, within their
// sixteen. For SwiGLU a warp's 16 rows of A are 8 of the gate and the same 8 outputs of the up matrix, so that a thread has both sums of an output.
#include "cuda/hopper/gemm_many.h"
#include "cuda/hopper/gemm_many_fp8.cuh"

namespace longcat::cuda {
namespace many {
namespace {

template <bool kDual_>
struct OrderedRows : Fp8Cut<kDual_> {
  using Cut = Fp8Cut<kDual_>;
  using Cut::kColumns, Cut::kDual, Cut::kRows, Cut::kWeightsBytes, Cut::kPanelBytes;
  static constexpr int kPanels = 2, kRowsBytes = kPanels * kPanelBytes, kStageBytes = kRowsBytes + kWeightsBytes, kStages = 4, kHelpers = 0;
  static constexpr int kSums = kRows / 2, kOwnTotals = 32;                     // of a thread's totals those in registers
  static constexpr int kSpareBytes = 32 * 4 * (kSums - kOwnTotals);            // of a warp: the other totals; results on their way out
  static constexpr int kProducerRegisters = 56, kMultiplierRegisters = 224;
  static constexpr int kWarpOutputs = kDual ? 8 : 16, kGroupOutputs = 4 * kWarpOutputs, kPieces = kGroupOutputs / 8;
  static_assert(4 * kSpareBytes >= kRows * 16 * kPieces);

  struct Sixteen {
    uint4 even, odd;
  };
  static int64_t rowBytes(int64_t k) { return 2 * k; }
  static __device__ __forceinline__ Sixteen prepare(const uint4 (&v)[2]) {
    const auto low = [](uint32_t a, uint32_t b) { return __byte_perm(a, b, 0x5410); };
    const auto high = [](uint32_t a, uint32_t b) { return __byte_perm(a, b, 0x7632); };
    return {{low(v[0].x, v[0].y), low(v[0].z, v[0].w), low(v[1].x, v[1].y), low(v[1].z, v[1].w)},
            {high(v[0].x, v[0].y), high(v[0].z, v[0].w), high(v[1].x, v[1].y), high(v[1].z, v[1].w)}};
  }
  static __device__ __forceinline__ void store(const Sixteen& of, unsigned char* row, int c, int) {
    reinterpret_cast<uint4*>(row)[2 * c] = of.even;
    reinterpret_cast<uint4*>(row)[2 * c + 1] = of.odd;
  }
  static __device__ __forceinline__ void help(const GemmProblem&, const Work&, const Memory<OrderedRows>&) {}

  /// Half a block of 16 weight rows as bfloat16: four steps of k. `codes`: this thread's place in the stage for ldmatrix.
  static __device__ __forceinline__ void convertHalf(uint32_t (&a)[4][4], const unsigned char* weights, int place, int half) {
#pragma unroll
    for (int x = 0; x < 2; ++x) {
      uint32_t codes[4];
      loadMatrix4(codes, weights + (place ^ ((2 * half + x) << 5)));
      bf16OfAlternate(codes[0], a[2 * x][0], a[2 * x][2]);
      bf16OfAlternate(codes[1], a[2 * x][1], a[2 * x][3]);
      bf16OfAlternate(codes[2], a[2 * x + 1][0], a[2 * x + 1][2]);
      bf16OfAlternate(codes[3], a[2 * x + 1][1], a[2 * x + 1][3]);
    }
  }
  static __device__ __forceinline__ void multiplyHalf(float (&part)[kSums], const uint32_t (&a)[4][4], uint64_t rows, bool add) {
    beginProducts();
#pragma unroll
    for (int x = 0; x < 4; ++x) productBf16<kRows>(part, a[x], furtherOn(rows, 32 * x), add || x > 0);
    endProducts();
  }

  /// Sums 4j … 4j + 3 are of rows 8j + 2q, 8j + 2q + 1: two of the output g of the warp's (for SwiGLU of the gate), two of 8 + g (of the up matrix).
  static __device__ __forceinline__ void multiply(const GemmProblem& p, Consumer<OrderedRows>& ring, const int4& tile, int warpgroup) {
    const int blocks = static_cast<int>(depthOf(p) / kFp8Block), lanes = lanesOf(depthOf(p)), warp = threadIdx.x >> 5 & 3, thread = threadIdx.x & 31;
    const int64_t scaleRow = min(tile.z, static_cast<int>(outputsOf(p)) - 1) / kFp8Block * blocks;
    const float* scale = matrixOf(p, tile.w, kDual && thread % 2 == 1).scale + scaleRow;  // every second thread brings the up matrix's
    unsigned char* spare = ring.m.spare + 4 * warpgroup * kSpareBytes;
    const int ofWarp = warpgroup * kGroupOutputs + warp * kWarpOutputs, row = thread & 15;
    const int place = swizzled128(ofWarp + (kDual && row >= 8 ? Cut::kBox - 8 + row : row), thread >> 4);
    float sum[kSums] = {};
    Total<kSums, kOwnTotals> total(spare + warp * kSpareBytes);
    uint32_t first[4][4], second[4][4];
    int lane = 0, laneEnd = laneBegin(blocks, 1, lanes);
    ring.await();
    convertHalf(first, ring.m.weights(ring.place.stage), place, 0);
    for (int block = 0; block < blocks; ++block) {
      const float own = scale[block];
      const int stage = ring.place.stage;
      const uint64_t rows = rowsOfK(ring.m.rows(stage));
      float part[kSums];
      multiplyHalf(part, first, rows, false);
      convertHalf(second, ring.m.weights(stage), place, 1);
      multiplyHalf(part, second, furtherOn(rows, kPanelBytes), true);
      if (block + 1 < blocks) {
        const RingPlace<kStages> next = ring.next();
        wait(ring.m.full + next.stage, next.phase);
        waitProducts<1>();
        convertHalf(first, ring.m.weights(next.stage), place, 0);
      }
      waitProducts<0>();
      holdRegisters(part);
      __syncwarp();  // all lanes have loaded the stage's weights
      ring.pass();
      const float by[2] = {kDual ? __shfl_sync(kAllLanes, own, 0) : own, kDual ? __shfl_sync(kAllLanes, own, 1) : own};
#pragma unroll
      for (int i = 0; i < kSums; ++i) sum[i] = fmaf(by[i / 2 % 2], part[i], sum[i]);
      if (block + 1 == laneEnd && laneEnd < blocks) {
        total.add(sum, lane == 0);
#pragma unroll
        for (int i = 0; i < kSums; ++i) sum[i] = 0;
        ++lane;
        laneEnd = laneBegin(blocks, lane + 1, lanes);
      }
    }
    if (lanes > 1) total.finish(sum);
    storeOrdered(p, sum, tile, ofWarp, warpgroup, spare);
  }

  /// Of each four sums the first two become SwiGLU's results.
  static __device__ __forceinline__ void finishDual(float (&sum)[kSums]) {
#pragma unroll
    for (int i = 0; i < kSums; ++i) {
      if (i / 2 % 2 == 0) sum[i] = silu(sum[i]) * sum[i + 2];
    }
  }

  /// A warp's results one by one, 32 rows at a time through shared memory: float32, odd strides.
  static __device__ __forceinline__ void storeNumbers(const GemmProblem& p, const float (&sum)[kSums], const int4& tile, int ofWarp, unsigned char* spare) {
    const int thread = threadIdx.x & 31, outputs = static_cast<int>(outputsOf(p)), output = tile.z + ofWarp;
    auto* numbers = reinterpret_cast<float*>(spare);
#pragma unroll
    for (int first = 0; first < kRows; first += 32) {
      __syncwarp();  // nobody reads what was there
#pragma unroll
      for (int i = 0; i < 16; ++i) {
        if (kDual && i / 2 % 2) continue;
        numbers[(i / 4 * 8 + 2 * (thread & 3) + i % 2) * kWarpOutputs + (thread >> 2) + i / 2 % 2 * 8] = sum[first / 2 + i];
      }
      __syncwarp();
#pragma unroll 1
      for (int i = thread; i < 32 * kWarpOutputs; i += 32) {
        const int row = first + i / kWarpOutputs, o = output + i % kWarpOutputs;
        if (row < tile.y && o < outputs) storeResult<false>(p, tile.x + row, o, numbers[i], 0);
      }
    }
    __syncwarp();  // before the next item's totals
  }

  /// A warpgroup's results.
  static __device__ __forceinline__ void storeOrdered(const GemmProblem& p, float (&sum)[kSums], const int4& tile, int ofWarp, int warpgroup, unsigned char* spare) {
    const int thread = threadIdx.x & 31, warp = threadIdx.x >> 5 & 3, outputs = static_cast<int>(outputsOf(p)), output = tile.z + ofWarp + (thread >> 2);
    if constexpr (kDual) finishDual(sum);
    if (!storesOctets(p)) return storeNumbers(p, sum, tile, ofWarp, spare + warp * kSpareBytes);
    if (!kDual && p.bias.data) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float bias = output + 8 * half < outputs ? loadNumber(p.bias.data, p.bias.dtype, output + 8 * half) : 0;
#pragma unroll
        for (int j = 0; j < kSums / 4; ++j) sum[4 * j + 2 * half] += bias, sum[4 * j + 2 * half + 1] += bias;
      }
    }
    syncSome(1 + warpgroup, 128);  // no warp has totals there any more
    constexpr int kOctets = kWarpOutputs / 8, kAtOnce = 4 / kOctets;  // octets of a row that a warp has; groups of 8 rows that are stored together
#pragma unroll
    for (int j = 0; j < kSums / 4; j += kAtOnce) {
      uint32_t pairs[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float* s = sum + 4 * (j + i / kOctets);
        pairs[i] = kDual ? bf16Pair(s[0], s[1]) : bf16Pair(s[i % 2 * 2], s[i % 2 * 2 + 1]);
      }
      const int matrix = thread / 8;
      storeMatrix4Transposed(spare + layoutPlace<kPieces>(8 * (j + matrix / kOctets) + thread % 8, kOctets * warp + matrix % kOctets), pairs);
    }
    syncSome(1 + warpgroup, 128);
#pragma unroll
    for (int i = 0; i < kRows * kPieces / 128; ++i) {
      const int unit = i * 128 + threadIdx.x % 128, row = unit / kPieces, piece = unit % kPieces, o = tile.z + warpgroup * kGroupOutputs + 8 * piece;
      if (row < tile.y && o < outputs) {
        const uint4 octet = *reinterpret_cast<const uint4*>(spare + layoutPlace<kPieces>(row, piece));
        *reinterpret_cast<uint4*>(static_cast<Bf16*>(p.out.data) + (tile.x + row) * p.outStride + o) = octet;
      }
    }
    syncSome(1 + warpgroup, 128);  // before the next item's totals
  }
};

}  // namespace
}  // namespace many

bool manyFp8Ordered(const CudaContext& context, const GemmProblem& p) {
  return p.epilogue == Epilogue::swiglu ? many::launchManyFp8<many::OrderedRows<true>>(context, p) : many::launchManyFp8<many::OrderedRows<false>>(context, p);
}

}  // namespace longcat::cuda
