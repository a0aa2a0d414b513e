// Many quantised rows times FP8 weights on Hopper: tensor cores multiply the codes themselves.
//
// Rows are wgmma's A, 64 for each of the two warpgroups, the block's 128 weight rows its B. A chain, its lane of k and the total are registers of a
// thread, 64 each.
#include "cuda/hopper/gemm_many.h"
#include "cuda/hopper/gemm_many_fp8.cuh"
#include "cuda/hopper/quantise.cuh"

namespace longcat::cuda {
namespace many {
namespace {

/// Behind a stage's weights are its rows' scales. A row ahead: its codes, then its blocks' scales.
template <bool kDual_>
struct QuantisedRows : Fp8Cut<kDual_> {
  using Cut = Fp8Cut<kDual_>;
  using Cut::kColumns, Cut::kDual, Cut::kRows, Cut::kWeightsBytes;
  static constexpr int kPanels = 1, kWidth = kColumns, kRowsBytes = kPanels * Cut::kPanelBytes, kStageBytes = kRowsBytes + kWeightsBytes + 1024;
  static constexpr int kPieces = 8, kSpareBytes = 16 * 16 * kPieces, kStages = 6;  // the first two as storeTile() has them
  static constexpr int kProducerRegisters = 56, kMultiplierRegisters = 224;
  static constexpr int kHelpers = 64;                                           // threads that bring rows' scales, two rows each
  static constexpr int kScalesAtOnce = 4;                                       // of a row, which are read together

  struct Sixteen {
    uint4 codes;
    float scale;
  };
  static int64_t rowBytes(int64_t k) { return k + ceilDiv(k, kScalesAtOnce * kFp8Block) * kScalesAtOnce * static_cast<int64_t>(sizeof(float)); }
  static __device__ __forceinline__ Sixteen prepare(const uint4 (&v)[2]) {
    Sixteen of;
    of.codes = e4m3Sixteen(v, of.scale);
    return of;
  }
  static __device__ __forceinline__ void store(const Sixteen& of, unsigned char* row, int c, int k) {
    reinterpret_cast<uint4*>(row)[c] = of.codes;
    if (c % 8 == 0) reinterpret_cast<float*>(row + k)[c / 8] = of.scale;
  }

  static __device__ __forceinline__ float* scalesOf(const Memory<QuantisedRows>& m, int stage) { return reinterpret_cast<float*>(m.weights(stage) + kWeightsBytes); }

  /// Rows' scales to shared memory.
  static __device__ __forceinline__ void help(const GemmProblem& p, const Work& work, const Memory<QuantisedRows>& m) {
    constexpr int kOwn = kRows / kHelpers;
    const int own = threadIdx.x % kHelpers, blocks = static_cast<int>(depthOf(p) / kFp8Block);
    const bool leads = (threadIdx.x & 31) == 0;
    RingPlace<kStages> place;
    for (int item = blockIdx.x / kCluster; item < work.items(); item += gridDim.x / kCluster) {
      const WorkItem tile = work.at(item);
      const float4* from[kOwn];
#pragma unroll
      for (int i = 0; i < kOwn; ++i) {
        const int row = min(static_cast<int>(tile.row) + own + i * kHelpers, static_cast<int>(tile.rowEnd) - 1);
        from[i] = reinterpret_cast<const float4*>(p.ahead + row * p.aheadStride + depthOf(p));
      }
      for (int first = 0; first < blocks; first += kScalesAtOnce) {
        float4 scales[kOwn];
#pragma unroll
        for (int i = 0; i < kOwn; ++i) scales[i] = from[i][first / kScalesAtOnce];
#pragma unroll
        for (int j = 0; j < kScalesAtOnce; ++j) {
          if (first + j >= blocks) break;
          wait(m.empty + place.stage, place.phase ^ 1);
#pragma unroll
          for (int i = 0; i < kOwn; ++i) {
            const float4& s = scales[i];
            scalesOf(m, place.stage)[own + i * kHelpers] = j == 0 ? s.x : j == 1 ? s.y : j == 2 ? s.z : s.w;
          }
          __syncwarp();
          if (leads) arrive(m.full + place.stage);
          place.next();
        }
      }
    }
  }

  /// A warp has 16 rows, of which a thread has two; sums 4j and 4j + 1 are the first one's, 4j + 2 and 4j + 3 the second one's.
  static __device__ __forceinline__ void multiply(const GemmProblem& p, Consumer<QuantisedRows>& ring, const int4& tile, int warpgroup) {
    constexpr int kSums = kWidth / 2;
    const int blocks = static_cast<int>(depthOf(p) / kFp8Block), lanes = lanesOf(depthOf(p)), warp = threadIdx.x >> 5 & 3, first = warpgroup * kUnit + 16 * warp;
    if (tile.y <= warpgroup * kUnit) return ring.skip(blocks);
    const int64_t scaleRow = min(tile.z, static_cast<int>(outputsOf(p)) - 1) / kFp8Block * blocks;
    const float* scale = matrixOf(p, tile.w, false).scale + scaleRow;
    const float* scale2 = kDual ? matrixOf(p, tile.w, true).scale + scaleRow : scale;
    unsigned char* spare = ring.m.spare + (4 * warpgroup + warp) * kSpareBytes;
    const int scaleAt = first + (threadIdx.x >> 2 & 7);
    float part[kSums], sum[kSums];
    Total<kSums> total(spare);
    for (int lane = 0; lane < lanes; ++lane) {
#pragma unroll
      for (int i = 0; i < kSums; ++i) sum[i] = 0;
      const int end = laneBegin(blocks, lane + 1, lanes);
      for (int block = laneBegin(blocks, lane, lanes); block < end; ++block) {
        const float of = scale[block], of2 = scale2[block];
        ring.await();
        const int stage = ring.place.stage;
        const float* rowScale = scalesOf(ring.m, stage) + scaleAt;
        const float upper = rowScale[0], lower = rowScale[8];
        const uint64_t a = rowsOfK(ring.m.rows(stage) + warpgroup * kUnit * kRowBytes), b = rowsOfK(ring.m.weights(stage));
        beginProducts();
#pragma unroll
        for (int i = 0; i < 4; ++i) productE4m3<kWidth>(part, furtherOn(a, 32 * i), furtherOn(b, 32 * i), i > 0);
        endProducts();
        const float by[2][2] = {{__fmul_rn(of, upper), __fmul_rn(of, lower)}, {__fmul_rn(of2, upper), __fmul_rn(of2, lower)}};
        waitProducts<0>();
        holdRegisters(part);
        __syncwarp();  // all lanes have loaded their rows' scales
        ring.pass();
#pragma unroll
        for (int i = 0; i < kSums; ++i) sum[i] = fmaf(by[i / (kSums / 2)][i / 2 % 2], part[i], sum[i]);
      }
      if (lane + 1 < lanes) total.add(sum, lane == 0);
      else if (lane > 0) total.finish(sum);
    }
    storeTile<QuantisedRows>(p, sum, tile.x + first, tile.y - first, tile.z, spare);
  }
};

}  // namespace
}  // namespace many

bool manyFp8Quantised(const CudaContext& context, const GemmProblem& p) {
  return p.epilogue == Epilogue::swiglu ? many::launchManyFp8<many::QuantisedRows<true>>(context, p) : many::launchManyFp8<many::QuantisedRows<false>>(context, p);
}

}  // namespace longcat::cuda
