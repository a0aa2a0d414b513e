// Products of few rows on Hopper (gemm_few.cuh): what differs between formats of weights.
//
// A stage is kNumbers of k; its activations are kPanels panels of N rows of 128 bytes. Weights are A, from registers: a thread loads, by
// ldmatrix, pieces x = 0…3 of 32 bytes of its warp's 16 weight rows.
#pragma once

#include "cuda/hopper/gemm_few_space.cuh"
#include "cuda/hopper/quantise.cuh"
#include "cuda/hopper/wgmma.cuh"

namespace longcat::cuda::few {

/// sum = fmaf(scale of weights and of each row, part, sum).
template <int N, bool kRowScales>
__device__ __forceinline__ void promote(float (&sum)[N / 2], const float (&part)[N / 2], float scale, const float* rowScales) {
#pragma unroll
  for (int j = 0; j < N / 8; ++j) {
    float2 of = {scale, scale};
    if constexpr (kRowScales) {
      of = *reinterpret_cast<const float2*>(rowScales + 8 * j + 2 * (threadIdx.x & 3));
      of.x = __fmul_rn(scale, of.x), of.y = __fmul_rn(scale, of.y);
    }
    sum[4 * j] = fmaf(of.x, part[4 * j], sum[4 * j]);
    sum[4 * j + 1] = fmaf(of.y, part[4 * j + 1], sum[4 * j + 1]);
    sum[4 * j + 2] = fmaf(of.x, part[4 * j + 2], sum[4 * j + 2]);
    sum[4 * j + 3] = fmaf(of.y, part[4 * j + 3], sum[4 * j + 3]);
  }
}

/// A row's sixteen numbers from number 16 · c of a segment on, to their place in the panels.
template <int kRowBytes>
__device__ __forceinline__ unsigned char* panelPlace(unsigned char* panels, int columns, int row, int c, int piece) {
  constexpr int kGroups = 64 / (8 * kRowBytes);  // groups of 16 numbers in a panel's row of 128 bytes
  static_assert(kGroups == 4 || kGroups == 8);
  return panels + (c / kGroups) * columns * 128 + swizzled128(row, (c % kGroups) * kRowBytes + piece);
}

struct Bf16Weights {
  static constexpr int kWeightBytes = 2, kNumbers = 64, kLaneStep = 32, kPanels = 1;
  static constexpr bool kScaled = false, kRowScales = false;

  template <int N, int kSteps>
  static __device__ __forceinline__ void chain(float (&sum)[N / 2], const uint32_t (&a)[4][4], uint64_t rows) {
    holdRegisters(sum);
    beginProducts();
#pragma unroll
    for (int x = 0; x < kSteps; ++x) productBf16<N>(sum, a[x], furtherOn(rows, 32 * x));
    endProducts();
    waitProducts<0>();
    holdRegisters(sum);
  }

  /// A lane may end in half a stage.
  template <int N>
  static __device__ __forceinline__ void multiply(float (&sum)[N / 2], Ring& ring, int stages, uint64_t rows, const float*, int numbers) {
    for (int s = 0; s < stages; ++s) {
      const Stage stage = ring.next();
      uint32_t a[4][4];
#pragma unroll
      for (int x = 0; x < 4; ++x) stage.load(a[x], x);
      stage.release();
      if (numbers - s * kNumbers > 32) chain<N, 4>(sum, a, furtherOn(rows, s * N * 128));
      else chain<N, 2>(sum, a, furtherOn(rows, s * N * 128));
    }
  }

  static __device__ __forceinline__ void keep(const uint4 (&v)[2], bool there, unsigned char* panels, float*, int columns, int row, int c) {
    if (!there) return;
#pragma unroll
    for (int piece = 0; piece < 2; ++piece) *reinterpret_cast<uint4*>(panelPlace<2>(panels, columns, row, c, piece)) = v[piece];
  }
};

/// FP8 weights times bfloat16. What ldmatrix hands thread q of a quad are codes 4q…4q + 3 of 16; wgmma takes the even ones for numbers 2q and 2q + 1,
/// the odd ones for 2q + 8 and 2q + 9, so that is where the activations' numbers 4q…4q + 3 are put.
struct Fp8Weights {
  static constexpr int kWeightBytes = 1, kNumbers = kFp8Block, kLaneStep = kFp8Block, kPanels = 2;
  static constexpr bool kScaled = true, kRowScales = false;

  static __device__ __forceinline__ void loadHalf(uint32_t (&a)[4][4], const Stage& stage, int half) {
#pragma unroll
    for (int x = 0; x < 2; ++x) {
      uint32_t codes[4];
      stage.load(codes, 2 * half + x);
      bf16OfAlternate(codes[0], a[2 * x][0], a[2 * x][2]);
      bf16OfAlternate(codes[1], a[2 * x][1], a[2 * x][3]);
      bf16OfAlternate(codes[2], a[2 * x + 1][0], a[2 * x + 1][2]);
      bf16OfAlternate(codes[3], a[2 * x + 1][1], a[2 * x + 1][3]);
    }
  }

  template <int N>
  static __device__ __forceinline__ void multiplyHalf(float (&part)[N / 2], const uint32_t (&a)[4][4], uint64_t rows, bool add) {
    beginProducts();
#pragma unroll
    for (int x = 0; x < 4; ++x) productBf16<N>(part, a[x], furtherOn(rows, 32 * x), add || x > 0);
    endProducts();
  }

  /// While the tensor cores have one half of a stage, the other, or the next stage's first, is converted.
  template <int N>
  static __device__ __forceinline__ void multiply(float (&sum)[N / 2], Ring& ring, int stages, uint64_t rows, const float*, int) {
    uint32_t first[4][4], second[4][4];
    Stage stage = ring.next();
    loadHalf(first, stage, 0);
    for (int s = 0; s < stages; ++s) {
      float part[N / 2];
      multiplyHalf<N>(part, first, furtherOn(rows, s * kPanels * N * 128), false);
      loadHalf(second, stage, 1);
      const float scale = *stage.scale;
      stage.release();
      multiplyHalf<N>(part, second, furtherOn(rows, (s * kPanels + 1) * N * 128), true);
      if (s + 1 < stages) {
        stage = ring.next();
        waitProducts<1>();
        loadHalf(first, stage, 0);
      }
      waitProducts<0>();
      holdRegisters(part);
      promote<N, false>(sum, part, scale, nullptr);
    }
  }

  static __device__ __forceinline__ void keep(const uint4 (&v)[2], bool there, unsigned char* panels, float*, int columns, int row, int c) {
    if (!there) return;
    const auto low = [](uint32_t a, uint32_t b) { return __byte_perm(a, b, 0x5410); };
    const auto high = [](uint32_t a, uint32_t b) { return __byte_perm(a, b, 0x7632); };
    *reinterpret_cast<uint4*>(panelPlace<2>(panels, columns, row, c, 0)) = {low(v[0].x, v[0].y), low(v[0].z, v[0].w), low(v[1].x, v[1].y), low(v[1].z, v[1].w)};
    *reinterpret_cast<uint4*>(panelPlace<2>(panels, columns, row, c, 1)) = {high(v[0].x, v[0].y), high(v[0].z, v[0].w), high(v[1].x, v[1].y), high(v[1].z, v[1].w)};
  }
};

/// FP8 weights times activations that are quantised as they are put in the panels, in blocks of 128 (docs/numerics.md, 7).
struct Fp8WeightsQuantisedRows {
  static constexpr int kWeightBytes = 1, kNumbers = kFp8Block, kLaneStep = kFp8Block, kPanels = 1;
  static constexpr bool kScaled = true, kRowScales = true;

  template <int N>
  static __device__ __forceinline__ void multiply(float (&sum)[N / 2], Ring& ring, int stages, uint64_t rows, const float* rowScales, int) {
    for (int s = 0; s < stages; ++s) {
      const Stage stage = ring.next();
      float part[N / 2];
      uint32_t a[4][4];
#pragma unroll
      for (int x = 0; x < 4; ++x) stage.load(a[x], x);
      const float scale = *stage.scale;
      stage.release();
      beginProducts();
#pragma unroll
      for (int x = 0; x < 4; ++x) productE4m3<N>(part, a[x], furtherOn(rows, s * N * 128 + 32 * x), x > 0);
      endProducts();
      waitProducts<0>();
      holdRegisters(part);
      promote<N, true>(sum, part, scale, rowScales + s * N);
    }
  }

  /// All threads of a warp call; eight that follow each other have the numbers of one block of a row.
  static __device__ __forceinline__ void keep(const uint4 (&v)[2], bool there, unsigned char* panels, float* rowScales, int columns, int row, int c) {
    float scale;
    const uint4 codes = e4m3Sixteen(v, scale);
    if (!there) return;
    *reinterpret_cast<uint4*>(panelPlace<1>(panels, columns, row, c, 0)) = codes;
    if (c % 8 == 0) rowScales[(c / 8) * columns + row] = scale;
  }
};

}  // namespace longcat::cuda::few
