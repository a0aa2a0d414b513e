// Hopper's matrix instructions: a warpgroup (four warps that begin at a multiple of four) multiplies 64 rows of A, from shared memory or its
// registers, by N columns of B in shared memory; float32 sums stay in its registers. PTX ISA 8.0, sm_90a.
//
// D[64, N] += A[64, K] · B[K, N], K = 16 for bfloat16, 32 for e4m3. Thread t of warp w (0…3), g = t / 4 % 8, q = t % 4, has
//   sum[4j + 0, 1] = D[16w + g, 8j + 2q, +1],   sum[4j + 2, 3] = D[16w + g + 8, 8j + 2q, +1],
// and of an A in registers what mma.m16n8k16 has of its A, with rows 16w…16w + 15.
//
//   beginProducts(); product<N>(sum, a, b) …; endProducts(); waitProducts<0>();
#pragma once

#include <cstdint>

#include "cuda/mma.cuh"

namespace longcat::cuda {

/// A tile in shared memory as wgmma reads it: rows of 128 bytes along K, 128-byte swizzle, eight rows (1024 bytes) after each other. `tile` is a
/// multiple of 1024, or lies whole steps of K (32 bytes) behind one.
__device__ __forceinline__ uint64_t rowsOfK(const void* tile) {
  return (static_cast<uint64_t>(sharedAddress(tile) & 0x3ffff) >> 4) | (1ull << 16) | (64ull << 32) | (1ull << 62);
}
/// The same along N (or M) instead: rows of 64 numbers of 2 bytes that belong to one k, 128-byte swizzle, 1024 bytes from eight k to the next
/// eight; `panelBytes` from 64 columns to the next 64. Only bfloat16 can be read so (kTransposed of product()).
__device__ __forceinline__ uint64_t rowsAcrossK(const void* tile, uint32_t panelBytes) {
  return (static_cast<uint64_t>(sharedAddress(tile) & 0x3ffff) >> 4) | (static_cast<uint64_t>(panelBytes >> 4) << 16) | (64ull << 32) | (1ull << 62);
}

/// The same tile `bytes` further on, a multiple of 16. Cheaper than a new description: beside products of few columns, making those is what takes long.
__device__ __forceinline__ uint64_t furtherOn(uint64_t tile, int bytes) {
  const uint32_t low = static_cast<uint32_t>(tile) + static_cast<uint32_t>(bytes >> 4), high = static_cast<uint32_t>(tile >> 32);
  return static_cast<uint64_t>(high) << 32 | low;
}

/// Before the first product of a chain: registers and shared memory written so far are seen by it.
__device__ __forceinline__ void beginProducts() { asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory"); }
__device__ __forceinline__ void endProducts() { asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory"); }
/// Until at most N chains are under way.
template <int N>
__device__ __forceinline__ void waitProducts() {
  asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(N) : "memory");
}
/// The compiler must neither move nor copy these registers across this place, where products use them behind its back.
template <int N>
__device__ __forceinline__ void holdRegisters(float (&sum)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) asm volatile("" : "+f"(sum[i])::"memory");
}
/// The same of an A in registers, behind the products that read it.
template <int N>
__device__ __forceinline__ void holdRegisters(uint32_t (&a)[N][4]) {
#pragma unroll
  for (int i = 0; i < N * 4; ++i) asm volatile("" : "+r"(a[i / 4][i % 4])::"memory");
}

// One body for each N: kinds bfloat16 and e4m3, A in shared memory (a descriptor) or in registers (four of them). `add` 0: sum = A · B.
// clang-format off
#define LONGCAT_SUMS4(i) "+f"(sum[i]), "+f"(sum[i + 1]), "+f"(sum[i + 2]), "+f"(sum[i + 3])
#define LONGCAT_SUMS16(i) LONGCAT_SUMS4(i), LONGCAT_SUMS4(i + 4), LONGCAT_SUMS4(i + 8), LONGCAT_SUMS4(i + 12)
#define LONGCAT_SUMS32(i) LONGCAT_SUMS16(i), LONGCAT_SUMS16(i + 16)
#define LONGCAT_PRODUCTS(N, COUNT, LIST, P0, P1, P2, P3, P4, P5, P6)                                                                             \
  template <> struct Products<N> {                                                                                                               \
    template <bool kTransposed, bool kTransposedA> static __device__ __forceinline__ void bf16(float (&sum)[COUNT], uint64_t a, uint64_t b, int add) {     \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " P2 ", 0;\nwgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 {" LIST "}, " P0 ", " P1 ", p, 1, 1, " P4 ", " P3 ";\n}\n"  \
                   : LONGCAT_SUMS_##COUNT : "l"(a), "l"(b), "r"(add), "n"(kTransposed ? 1 : 0), "n"(kTransposedA ? 1 : 0));                                               \
    }                                                                                                                                            \
    template <bool kTransposed, bool kTransposedA> static __device__ __forceinline__ void bf16(float (&sum)[COUNT], const uint32_t (&a)[4], uint64_t b, int add) {            \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " P5 ", 0;\nwgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 {" LIST "}, {" P0 "," P1 "," P2 "," P3 "}, " P4 ", p, 1, 1, " P6 ";\n}\n" \
                   : LONGCAT_SUMS_##COUNT : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add), "n"(kTransposed ? 1 : 0));                                        \
    }                                                                                                                                            \
    static __device__ __forceinline__ void e4m3(float (&sum)[COUNT], uint64_t a, uint64_t b, int add) {                                                \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " P2 ", 0;\nwgmma.mma_async.sync.aligned.m64n" #N "k32.f32.e4m3.e4m3 {" LIST "}, " P0 ", " P1 ", p, 1, 1;\n}\n" \
                   : LONGCAT_SUMS_##COUNT : "l"(a), "l"(b), "r"(add));                                                                                             \
    }                                                                                                                                            \
    static __device__ __forceinline__ void e4m3(float (&sum)[COUNT], const uint32_t (&a)[4], uint64_t b, int add) {                                    \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " P5 ", 0;\nwgmma.mma_async.sync.aligned.m64n" #N "k32.f32.e4m3.e4m3 {" LIST "}, {" P0 "," P1 "," P2 "," P3 "}, " P4 ", p, 1, 1;\n}\n" \
                   : LONGCAT_SUMS_##COUNT : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));                                                         \
    }                                                                                                                                            \
  };

#define LONGCAT_SUMS_4 LONGCAT_SUMS4(0)
#define LONGCAT_SUMS_8 LONGCAT_SUMS4(0), LONGCAT_SUMS4(4)
#define LONGCAT_SUMS_16 LONGCAT_SUMS16(0)
#define LONGCAT_SUMS_32 LONGCAT_SUMS32(0)
#define LONGCAT_SUMS_48 LONGCAT_SUMS32(0), LONGCAT_SUMS16(32)
#define LONGCAT_SUMS_64 LONGCAT_SUMS32(0), LONGCAT_SUMS32(32)
#define LONGCAT_SUMS_96 LONGCAT_SUMS32(0), LONGCAT_SUMS32(32), LONGCAT_SUMS32(64)
#define LONGCAT_SUMS_128 LONGCAT_SUMS32(0), LONGCAT_SUMS32(32), LONGCAT_SUMS32(64), LONGCAT_SUMS32(96)
template <int N>
struct Products;
LONGCAT_PRODUCTS(8, 4, "%0,%1,%2,%3", "%4", "%5", "%6", "%7", "%8", "%9", "%10")
LONGCAT_PRODUCTS(16, 8, "%0,%1,%2,%3,%4,%5,%6,%7", "%8", "%9", "%10", "%11", "%12", "%13", "%14")
LONGCAT_PRODUCTS(32, 16, "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15", "%16", "%17", "%18", "%19", "%20", "%21", "%22")
LONGCAT_PRODUCTS(64, 32, "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31", "%32", "%33", "%34", "%35", "%36", "%37", "%38")
LONGCAT_PRODUCTS(96, 48, "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47", "%48", "%49", "%50", "%51", "%52", "%53", "%54")
LONGCAT_PRODUCTS(128, 64, "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63", "%64", "%65", "%66", "%67", "%68", "%69", "%70")
LONGCAT_PRODUCTS(192, 96, "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63,%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95", "%96", "%97", "%98", "%99", "%100", "%101", "%102")
LONGCAT_PRODUCTS(256, 128, "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63,%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95,%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111,%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127", "%128", "%129", "%130", "%131", "%132", "%133", "%134")
#undef LONGCAT_SUMS_4
#undef LONGCAT_SUMS_8
#undef LONGCAT_SUMS_16
#undef LONGCAT_SUMS_32
#undef LONGCAT_SUMS_48
#undef LONGCAT_SUMS_64
#undef LONGCAT_SUMS_96
#undef LONGCAT_SUMS_128
#undef LONGCAT_PRODUCTS
#undef LONGCAT_SUMS32
#undef LONGCAT_SUMS16
#undef LONGCAT_SUMS4
// clang-format on

/// sum[64, N] += A · B over one step of K; `add` false: sum = A · B. A: a descriptor, or four registers. Transposed: rowsAcrossK describes it.
template <int N, bool kTransposed = false, bool kTransposedA = false, class A>
__device__ __forceinline__ void productBf16(float (&sum)[N / 2], const A& a, uint64_t b, bool add = true) {
  static_assert(!kTransposedA || sizeof(A) == sizeof(uint64_t));
  Products<N>::template bf16<kTransposed, kTransposedA>(sum, a, b, add);
}
template <int N, class A>
__device__ __forceinline__ void productE4m3(float (&sum)[N / 2], const A& a, uint64_t b, bool add = true) {
  Products<N>::e4m3(sum, a, b, add);
}

/// Four 8×8 matrices of 16-bit numbers to shared memory; lane l gives the address of row l%8 of matrix l/8. A register has two numbers of a row,
/// as pairs of a wgmma sum are.
__device__ __forceinline__ void storeMatrix4(void* row, const uint32_t (&pairs)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};\n" ::"r"(sharedAddress(row)), "r"(pairs[0]), "r"(pairs[1]),
               "r"(pairs[2]), "r"(pairs[3])
               : "memory");
}

/// The same with each matrix transposed: a register has two numbers of a column.
__device__ __forceinline__ void storeMatrix4Transposed(void* row, const uint32_t (&pairs)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};\n" ::"r"(sharedAddress(row)), "r"(pairs[0]), "r"(pairs[1]),
               "r"(pairs[2]), "r"(pairs[3])
               : "memory");
}

}  // namespace longcat::cuda
